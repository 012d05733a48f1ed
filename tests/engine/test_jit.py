"""`jit`: the traced function gives what the plain one gives, traces when it must, and says what it cannot do."""

import collections
import functools
import re
import warnings

import attrs
import pytest
import toolz
import torch
from toolz import curried

from functrain import tree
from functrain.engine import check, grad, jit, value_and_grad, vmap
from functrain.errors import (
    EagerAndCompiledDiffer,
    TooManyTraces,
)


@tree.node
class Point:
    x: torch.Tensor
    y: torch.Tensor
    unit: str = tree.static(default="m")


Pair = collections.namedtuple("Pair", "left right")


def of(*shape):
    return torch.arange(float(torch.Size(shape).numel())).reshape(shape) / 7


def shift(point):
    return attrs.evolve(point, x=point.x + 1)


CASES = {
    "dict": (lambda d: {k: v * 2 for k, v in d.items()}, ({"a": of(2), "b": of(2, 2)},)),
    "list, tuple, None": (lambda t: [t[0] + t[1][0], (t[1][0],), None], ([of(2), (of(2), None)],)),
    "named tuple": (lambda p: Pair(p.right, p.left + p.right), (Pair(of(2), of(2)),)),
    "ordered dict": (lambda d: collections.OrderedDict(a=d["a"].sin()), (collections.OrderedDict(a=of(3)),)),
    "record": (shift, (Point(of(2), of(3)),)),
    "records in a dict": (lambda d: {"p": shift(d["p"]), "n": d["n"]}, ({"p": Point(of(2), of(3)), "n": of(1)},)),
    "toolz": (lambda x: toolz.pipe(x, torch.sin, curried.map(torch.cos), list, torch.stack), (of(3),)),
    "compose": (toolz.compose(torch.sin, torch.cos), (of(3),)),
    "curry": (toolz.curry(lambda a, b: a * b)(of(3)), (of(3),)),
    "partial": (functools.partial(torch.add, alpha=2), (of(3), of(3))),
    "grad": (grad(lambda p: (p["w"] ** 3).sum()), ({"w": of(3)},)),
    "value_and_grad": (value_and_grad(lambda w, x: ((x @ w) ** 2).mean()), (of(3), of(4, 3))),
    "vmap": (vmap(lambda x, y: (x * y).sum(), in_dims=(0, None)), (of(3, 2), of(2))),
    "vmap of grad": (vmap(grad(lambda x: (x**3).sum())), (of(3, 2),)),
    "jvp": (lambda x: torch.func.jvp(torch.sin, (x,), (torch.ones_like(x),)), (of(3),)),
    "hessian": (torch.func.hessian(lambda x: (x**3).sum()), (of(3),)),
    "integer arithmetic": (lambda i: (i * 3 + 1, i // 2, i % 2 == 0), (torch.arange(5),)),
    "promotion": (lambda i: (i + 0.5, i * of(5).double()), (torch.arange(5),)),
    "write into an own tensor": (lambda x: torch.zeros(3).index_fill_(0, torch.tensor([1]), 2.0) + x, (of(3),)),
    "masked": (lambda x: x.masked_fill(x > 0.2, -1.0), (of(4),)),
    "split": (lambda x: [part * 2 for part in x.split(2)], (of(5),)),
    "in place of a view": (lambda x: torch.stack([y.add_(1) for y in x.clone().unbind(0)]), (of(3, 2),)),
    "returns an argument": (lambda x, y: (x, y, x), (of(2), of(3))),
    "constant": (lambda x: x * torch.tensor([1.0, 2.0]) + torch.ones(2), (of(2),)),
    "constant result": (lambda x: (x, torch.zeros(2), torch.zeros(2)), (of(2),)),
    "special numbers": (lambda x: (x.clamp(max=float("inf")), torch.full((2,), float("nan"))), (of(2),)),
    "empty": (lambda x: x + 1, (of(0, 3),)),
    "no tensors in": (lambda: torch.arange(3), ()),
    "attention": (
        lambda q: torch.nn.functional.scaled_dot_product_attention(q, q, q, is_causal=True),
        (of(1, 2, 4, 8),),
    ),
    "layer norm": (lambda x: torch.nn.functional.layer_norm(x, (3,)), (of(2, 3),)),
    "convolution": (lambda x, w: torch.nn.functional.conv2d(x, w, padding=1), (of(1, 2, 4, 4), of(3, 2, 3, 3))),
    "static arguments": (lambda x, how, n: x**n if how == "power" else x, (of(3), "power", 2)),
}


# PyTorch's own forward-mode derivatives script their decompositions.
@pytest.mark.filterwarnings("ignore:.torch.jit.script.:DeprecationWarning")
@pytest.mark.parametrize("name", CASES)
def test_compiled_equals_plain(name):
    f, args = CASES[name]
    before = tree.map(lambda t: t.clone() if isinstance(t, torch.Tensor) else t, args)
    expected = f(*args)
    compiled = jit(f)
    for _ in range(2):  # the call that traces, and one that finds the trace
        got = compiled(*args)
        assert tree.structure(got) == tree.structure(expected)
        assert not tree.differences(expected, got, rtol=1e-6, atol=1e-7)
    assert tree.equal(before, args)
    assert len(compiled.traces) == 1


def test_keyword_arguments_in_any_order():
    f = jit(lambda a, *, b, c: a + 2 * b + 3 * c)
    x, y, z = of(1) + 1, of(1) + 2, of(1) + 3
    assert torch.equal(f(x, b=y, c=z), f(x, c=z, b=y))
    assert len(f.traces) == 1


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        ((of(2),), (of(3),), r"x: float32\(2,\) became float32\(3,\)"),
        ((of(2),), (of(2).double(),), r"x: float32\(2,\) became float64\(2,\)"),
        ((of(2, 3),), (of(3, 2).t(),), r"x: float32\(2, 3\) became float32\(2, 3\) with strides \(1, 2\)"),
        (({"a": of(2)},), ({"b": of(2)},), r"x\.b is new.*x\.a is gone"),
        ((of(2), 1), (of(2), 2), "n: 1 became 2"),
        ((of(2), 1), (of(2), 1.0), r"n: 1 became 1\.0"),
        ((of(2), 1), (of(2), True), "n: 1 became True"),
        ((of(2), 0.0), (of(2), -0.0), r"n: 0\.0 became -0\.0"),
        ((Point(of(2), of(2)),), (Point(of(2), of(2), "km"),), "."),
        (({"a": of(1), "b": of(1)},), ({"b": of(1), "a": of(1)},), "."),
    ],
)
def test_it_traces_again_for_another_form_and_says_why(first, second, reason):
    f = jit(lambda x, n=0: tree.map(lambda t: t + n, x))
    f(*first)
    f(*second)
    f(*first)
    assert len(f.traces) == 2
    assert f.traces[0].reason == "first call"
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(f.traces[1].reason)


def test_the_default_dtype_belongs_to_the_form():
    f = jit(lambda x: torch.zeros(2) + x)
    assert f(torch.tensor(1)).dtype == torch.float32
    torch.set_default_dtype(torch.float64)
    try:
        assert f(torch.tensor(1)).dtype == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_warning_names_the_leaf_and_its_values_at_8_traces_at_16_and_so_on():
    f = jit(lambda x, lr: x * lr)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for k in range(40):
            f(of(2), 0.5 + k)
    assert {one.category for one in caught} == {TooManyTraces}
    assert [str(one.message).split(" times")[0][-2:].strip() for one in caught] == ["8", "16", "32"]
    assert re.search(r"traced 8 times: lr was 0\.5, .*6\.5, 7\.5; make a number that changes", str(caught[0].message))


def test_inside_jit_grad_and_vmap_the_plain_function_runs():
    inner = jit(lambda x: (x**2).sum())
    assert torch.equal(jit(lambda x: inner(x) + 1)(of(3)), inner(of(3)) + 1)
    n = len(inner.traces)
    assert torch.equal(grad(inner)(of(3)), 2 * of(3))
    assert torch.equal(vmap(inner)(of(2, 3)), (of(2, 3) ** 2).sum(1))
    assert torch.equal(torch.func.grad(inner)(of(3)), 2 * of(3))
    assert len(inner.traces) == n


def test_gradients_flow_through_where_arguments_require_them():
    f = jit(lambda x: (x**2).sum())
    x = of(3).requires_grad_()
    f(x).backward()
    assert torch.equal(x.grad, 2 * of(3))
    assert len(f.traces) == 0
    with torch.no_grad():
        assert not f(x).requires_grad
        f(torch.nn.Parameter(of(3)))
    assert len(f.traces) == 1


def test_inference_mode_and_autocast_are_forms_of_their_own():
    f = jit(lambda x: x @ x)
    x = torch.ones(4, 4)
    assert f(x).dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert f(x).dtype == torch.bfloat16
    assert f(x).dtype == torch.float32
    with torch.inference_mode():
        assert torch.equal(f(x), x @ x)


def test_a_closed_over_tensor_is_by_reference_and_another_one_is_noticed():
    w = torch.ones(2)

    def f(x):
        return x * w

    g = jit(f)
    assert g(of(2)).tolist() == of(2).tolist()
    w.add_(1)  # the same tensor, changed
    assert g(of(2)).tolist() == (2 * of(2)).tolist()
    w = torch.full((2,), 5.0)  # another tensor
    assert g(of(2)).tolist() == (5 * of(2)).tolist()
    assert len(g.traces) == 2


def test_a_closed_over_number_is_noticed():
    rate = 2.0

    def f(x):
        return x * rate

    g = jit(f)
    g(of(2))
    rate = 3.0
    assert g(of(2)).tolist() == (3 * of(2)).tolist()


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32]
)
@pytest.mark.parametrize("number", [3, -1, 0.1, 1e-40])
def test_arithmetic_with_numbers_has_the_bits_of_pytorch(dtype, number):
    def f(x, s):
        y = [x + number, x * number, x / 3, x - number, torch.add(x, x, alpha=2), torch.rsub(x, number), s * number]
        return y, torch._foreach_add([x, x + x], number)

    x = torch.arange(-3, 4).to(dtype) / (7 if dtype.is_floating_point else 1)
    x, s = x.to(dtype), x[0].to(dtype)
    assert not tree.differences(jit(f)(x, s), f(x, s), rtol=0, atol=0)


def test_a_view_of_a_constant_is_new_memory_at_each_call():
    f = jit(lambda x: torch.zeros(2, 3).reshape(6))
    f(of(2)).add_(1)
    assert f(of(2)).sum() == 0


def test_results_are_new_tensors_at_each_call():
    f = jit(lambda x: (x * 2, torch.zeros(2)))
    first, second = f(of(2)), f(of(2))
    assert first[0] is not second[0]
    assert first[1].data_ptr() != second[1].data_ptr()
    first[0].add_(100)
    first[1].add_(100)
    assert tree.equal(f(of(2)), second)


def test_introspection():
    f = jit(lambda x: x * 2)
    f(of(2))
    (trace,) = f.traces
    assert trace.seconds_traced > 0 and trace.seconds_compiled > 0
    assert [n.name for n in trace.graph.graph.nodes if n.op == "call_function"] == ["mul"]


def test_lower_traces_without_running_and_compiles_on_demand():
    f = jit(lambda x: x * 2)
    lowered = f.lower(of(2))
    assert "aten.mul" in lowered.code
    assert len(f.traces) == 0
    assert lowered.compile()(of(2)).tolist() == (2 * of(2)).tolist()
    assert len(f.traces) == 1


def test_conjugated_views():
    x = torch.tensor([1 + 2j])
    f = jit(lambda x: x * 2)
    assert torch.equal(f(x.conj()), 2 * x.conj().resolve_conj())


def test_check_reports_and_finds_the_first_difference():
    report = check(lambda p, x: {"y": x @ p["w"]}, {"w": of(3)}, of(2, 3))
    assert set(report.outputs) == {"y"}
    assert set(report.gradients) == {"0.w", "1"}

    from functrain.dispatch_state import is_plain

    with pytest.raises(EagerAndCompiledDiffer, match=r"output y at \[0\]: 1\.0 against 2\.0 \(3 of 3 differ\)"):
        check(lambda x: {"y": x if is_plain() else 2 * x}, torch.ones(3))
