"""A fixed sample of the conformance to PyTorch's database: every mode and dtype, each over other operators."""

import itertools

import pytest

from .cases import MODES, cases, has
from .catalogue import DTYPES, operators, spread
from .groups import ERRORS, Group
from .judging import Case, judge
from .pairs import pair_cases

_PATH = "PyTorch goes another way for subclasses of tensors, as a trace needs: the same values in other strides"
_NAN = "PyTorch's gradient of a product with zeros is NaN for plain tensors, and right for subclasses"
_FLASH = "torch.ops.aten._scaled_dot_product_flash_attention_for_cpu"
_BEYOND = "PyTorch 2.14.1 computes noise, each time another, of inputs in bfloat16 whose last axis is not contiguous"
KNOWN: dict[tuple[str, str], str] = {
    ("linalg.householder_product", "gradient_transposed"): _PATH,
    ("max.reduction_no_dim", "gradient_transposed"): _PATH,
    ("median", "gradient_transposed"): _PATH,
    ("min.reduction_no_dim", "gradient_transposed"): _PATH,
    ("nanmedian", "gradient_transposed"): _PATH,
    ("nn.functional.max_pool1d", "closed_transposed"): _PATH,
    ("nn.functional.max_pool1d", "transposed"): _PATH,
    ("ormqr", "gradient"): _PATH,
    ("ormqr", "gradient_transposed"): _PATH,
    ("prod", "gradient_transposed"): _PATH,
    ("masked.prod", "gradient"): _NAN,
    ("masked.prod", "gradient_transposed"): _NAN,
    (_FLASH, "transposed"): _BEYOND,
    (_FLASH, "closed_transposed"): _BEYOND,
    (_FLASH, "gradient_transposed"): _BEYOND,
    ("median", "expanded"): "PyTorch reads beyond the memory of an axis of stride 0",
    ("as_strided_scatter", "gradient_transposed"): "eager execution stops at an internal assert of PyTorch",
}
"""(operator, mode) -> why it is wrong or raises an error of PyTorch's own. A pair's operator is `first second`."""

STEP = 24
CASES_EACH = 3
PAIRS = 50

KINDS = [(m, d) for m in MODES for d in DTYPES if d in MODES[m].dtypes] + [(ERRORS, "float32")]


def failures(mode: str, named: list[tuple[str, Case]]) -> list[str]:
    verdicts = [(name, case, judge(case)) for name, case in named if (name, mode) not in KNOWN]
    return [
        f"{name} ({mode}), case {case.name}: {verdict.outcome}, {verdict.detail}"
        for name, case, verdict in verdicts
        if verdict.outcome in ("wrong", "raw")
    ]


@pytest.mark.parametrize(("mode", "dtype"), KINDS, ids=[f"{m}-{d}" for m, d in KINDS])
@pytest.mark.filterwarnings("ignore")
def test_jit_equals_eager_execution_on_pytorchs_samples(mode, dtype):
    begin = KINDS.index((mode, dtype)) % STEP
    chosen = [name for name in sorted(operators())[begin::STEP] if has(name, mode, dtype)]
    found = []
    for name in chosen:
        all_cases = list(cases(name, mode, dtype))
        found += failures(mode, [(name, all_cases[k]) for k in spread(len(all_cases), CASES_EACH)])
    assert not found, "\n" + "\n".join(found)


@pytest.mark.filterwarnings("ignore")
def test_jit_equals_eager_execution_on_pairs_of_operators():
    group = Group("pairs.000", "pairs", "float32")
    taken = itertools.islice(pair_cases(group.op, group.dtype), PAIRS)
    found = failures(group.mode, [(case.name, case) for case in taken])
    assert not found, "\n" + "\n".join(found)
