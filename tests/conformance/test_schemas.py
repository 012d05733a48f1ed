"""The table of what schemas do not say is complete, as far as a search sees, and has no row too many."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from functrain.engine.tracing.undeclared import UNDECLARED_ALIASES, UNDECLARED_WRITES
from tests.conformance.schemas import Finding, Watch
from tests.conformance.schemas_calls import database, plain, try_database
from tests.conformance.schemas_modules import try_training
from tests.conformance.schemas_training import operation

TABLE = {
    Finding(overload, what)
    for table in (UNDECLARED_WRITES, UNDECLARED_ALIASES)
    for overload in table
    for what in table[overload]
}


def stats() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.zeros(3), torch.ones(3)


def norm(*more: Any, **out: torch.Tensor) -> Any:
    name = "native_batch_norm.out" if out else "native_batch_norm.default"
    return operation(name)(torch.randn(4, 3, 5), None, None, *stats(), *more, **out)


def lstm() -> None:
    x = torch.randn(5, 3, 4, requires_grad=True)
    torch.nn.LSTM(4, 6)(x)[0].sum().backward()


def of(name: str, *args: Any) -> Callable[[], Any]:
    return lambda: operation(name)(*args)


X = torch.arange(24.0).reshape(4, 6)

EXAMPLES: dict[str, Callable[[], Any]] = {
    "aten.native_batch_norm.default": lambda: norm(True, 0.1, 1e-5),
    "aten.native_batch_norm.out": lambda: norm(
        True, 0.1, 1e-5, out=torch.empty(4, 3, 5), save_mean=torch.empty(3), save_invstd=torch.empty(3)
    ),
    "aten.batch_norm_update_stats.default": of("batch_norm_update_stats.default", torch.randn(4, 3, 5), *stats(), 0.1),
    "aten.mkldnn_rnn_layer_backward.default": lstm,
    "aten._unsafe_view.default": of("_unsafe_view.default", X, [24]),
    "aten.unsafe_split.Tensor": of("unsafe_split.Tensor", X, 2),
    "aten.unsafe_split_with_sizes.default": of("unsafe_split_with_sizes.default", X, [1, 3]),
    "aten.lift.default": of("lift.default", X),
    "aten.dequantize.self": of("dequantize.self", X),
    "aten.set_.source_Tensor": of("set_.source_Tensor", torch.empty(3), X),
    "aten.set.source_Tensor": of("set.source_Tensor", torch.empty(3), X),
    "aten._transform_bias_rescale_qkv.default": of(
        "_transform_bias_rescale_qkv.default", torch.ones(2, 5, 24), torch.ones(24), 2
    ),
}
"""Overload -> the smallest call that shows all of its rows."""

QUIET = {
    "a write that is declared": of(
        "_native_batch_norm_legit.default", X, None, None, torch.ones(6), torch.ones(6), True, 0.1, 1e-5
    ),
    "views that are declared": of("split.Tensor", X, 2),
    "running statistics that are only read": lambda: norm(False, 0.1, 1e-5),
    "a copy": of("clone.default", X),
    "elements written through lists": of("_foreach_add_.Scalar", [torch.ones(3)], 1),
}


def found(call: Callable[[], Any], name: str) -> set[Finding]:
    watch = Watch()
    with watch:
        call()
    return {finding for finding in watch.found if name in ("", finding.overload)}


def test_each_overload_of_the_table_has_an_example():
    assert {finding.overload for finding in TABLE} == EXAMPLES.keys()


@pytest.mark.parametrize("overload", EXAMPLES)
def test_an_overload_hides_what_the_table_says_and_no_more(overload):
    if overload == "aten.mkldnn_rnn_layer_backward.default" and not torch.backends.mkldnn.is_available():
        pytest.skip("needs PyTorch with mkldnn")
    rows = {finding for finding in TABLE if finding.overload == overload}
    assert found(EXAMPLES[overload], overload) == rows


@pytest.mark.parametrize("case", QUIET)
def test_the_search_is_silent_about(case):
    assert found(QUIET[case], "") == set()


def test_a_search_finds_nothing_that_the_table_lacks():
    """A tenth of PyTorch's database and all of training, in one form; the whole search is a command of its own."""
    watch = Watch()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try_training(watch, forms=(plain,), dtypes=(torch.float32,))
        try_database(watch, database()[::10], seconds=0.25)
    lacking = {finding: watch.examples[finding][0] for finding in watch.found if finding not in TABLE}
    assert not lacking
    assert len(watch.calls) > 550, "the search has lost most of its calls"
