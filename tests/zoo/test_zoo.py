"""The small part of the zoo that CI runs; `python -m tests.zoo` runs all of it."""

import pytest

from tests.zoo import own_models, transformers_models
from tests.zoo.comparing import Case, compare

SMALL = ("Bert", "GPT2", "Llama", "T5", "ViT", "ConvNext", "ResNet", "Whisper", "Mamba")
FROM_TRANSFORMERS = transformers_models.CASES[: len(SMALL)]


@pytest.mark.filterwarnings("ignore:.*nested tensor.*:UserWarning")
@pytest.mark.parametrize("case", own_models.CASES, ids=lambda case: case.name)
def test_three_steps_are_those_of_the_modules_own_loop(case: Case):
    assert compare(case).wrong == []


@pytest.mark.parametrize("case", FROM_TRANSFORMERS, ids=lambda case: case.name)
def test_models_of_transformers(case: Case):
    pytest.importorskip("transformers", reason="the extra test has it")
    assert compare(case).wrong == []


def test_what_is_compared_can_differ():
    """The comparison sees a model that is not the module: here one without its second layer's bias moving."""
    case = own_models.CASES[0]
    wrong = compare(Case(case.name, case.make, case.batch, case.loss, options={"out": lambda y: y * 1.01}), jit=False)
    assert wrong.wrong
