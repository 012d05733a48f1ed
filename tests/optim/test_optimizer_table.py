"""The reference's table of optimizers has all of them with true figures, and each reads as a call with names."""

import ast
import re

import pytest
from every_optimizer import OPTIMIZERS
from every_transform import TRANSFORMS
from optimizer_table import MEMORY, copies, members, rows

from functrain import optim, schedule


def test_each_optimizer_has_a_row_and_each_row_an_optimizer():
    assert sorted(members().keys() - rows().keys()) == [], "see optimizer_table.py"
    assert sorted(rows().keys() - members().keys()) == []


def test_each_row_is_whole():
    assert {name: len(cells) for name, cells in rows().items()} == dict.fromkeys(rows(), 5)
    assert [name for name, cells in rows().items() if not all(cells)] == []


@pytest.mark.parametrize("name", members())
def test_the_memory_of_its_state_is_what_the_table_says(name):
    assert copies(name) == rows()[name][MEMORY]


# --- as they read ---

FALL = schedule.cosine(0.1, 0.01)
MADE = {name: make(0.1) for name, (make, _) in OPTIMIZERS.items()}
MADE |= {f"{name}, scheduled": make(FALL) for name, (make, _) in OPTIMIZERS.items() if name not in ("rprop", "dowg")}
MADE |= {f"the transform {name}": made for name, made in TRANSFORMS.items()}


def calls(made):
    text = re.sub(r"(\w+)\.(\w+=)", r"\1_\2", repr(made))  # the hyperparameter "muon.lr"
    return [node for node in ast.walk(ast.parse(text, mode="eval")) if isinstance(node, ast.Call)]


@pytest.mark.parametrize("name", MADE)
def test_numbers_have_their_names(name):
    for call in calls(MADE[name]):
        bare = [a.value for a in call.args if isinstance(a, ast.Constant) and not isinstance(a.value, str)]
        assert not bare or hasattr(schedule, ast.unparse(call.func)), repr(MADE[name])


@pytest.mark.parametrize(
    "text",
    [
        "adamw(lr=cosine(0.1, 0.01), b1=0.9, b2=0.999, eps=1e-08, weight_decay=0.01)",
        "sam(sgd(lr=0.1, momentum=0.9), rho=0.05, adaptive=True)",
        "accumulate(k=4, transform=lookahead(k=5, slow_lr=0.5, transform=sgd(lr=linear(0.1, 0.0))))",
        "apply_if_finite(most=3, transform=cautious(adam(lr=0.1, b1=0.9, b2=0.999, eps=1e-08), least=0.001))",
        "unfreeze_gradually(sgd(lr=0.1), groups=['a', 'b'], milestones=[0.5])",
        "gate(is_open=over_updates(10, constant(1.0)), transform=freeze('a', sgd(lr=0.1)))",
        "low_rank(chain(scale_by_lion(b1=0.9, b2=0.99), scale(factor=0.5)), rank=2, every=5)",
        "mechanize(round_stochastically(sgd(lr=0.1)))",
    ],
)
def test_wrappers_read_as_what_makes_them(text):
    assert repr(eval(text, {**vars(schedule), **vars(optim)})) == text
