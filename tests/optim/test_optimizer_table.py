"""The reference's table of optimizers has all of them, and its figures are true."""

import pytest
from optimizer_table import MEMORY, copies, members, rows


def test_each_optimizer_has_a_row_and_each_row_an_optimizer():
    assert sorted(members().keys() - rows().keys()) == [], "see optimizer_table.py"
    assert sorted(rows().keys() - members().keys()) == []


def test_each_row_is_whole():
    assert {name: len(cells) for name, cells in rows().items()} == dict.fromkeys(rows(), 5)
    assert [name for name, cells in rows().items() if not all(cells)] == []


@pytest.mark.parametrize("name", members())
def test_the_memory_of_its_state_is_what_the_table_says(name):
    assert copies(name) == rows()[name][MEMORY]
