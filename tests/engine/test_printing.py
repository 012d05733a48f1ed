"""`lower(...).code`: a graph as source that people read, and that computes what the graph does."""

import re

import expecttest
import pytest
import torch
import torch.nn.functional as F

from functrain import nn
from functrain.engine import grad, jit, scan, value_and_grad

X = torch.arange(6.0).reshape(2, 3) / 6
P = {"layer.0": {"weight": torch.ones(3, 3) / 3}, "bias": torch.ones(3)}
TABLE = torch.arange(3.0)


def code(f, *args) -> str:
    """The source, with lines of this file without their numbers, which change when it is edited."""
    return re.sub(r"\.py:\d+", ".py:N", jit(f).lower(*args).code)


def loss(p, x):
    h = torch.tanh(x @ p["layer.0"]["weight"] + p["bias"])
    return (h * TABLE).sum()


def test_gradient():
    def step(params, x):
        value, g = value_and_grad(loss)(params, x)
        return {"loss": value, "bias": params["bias"] - 0.1 * g["bias"]}

    expecttest.assert_expected_inline(
        code(step, P, X),
        """\
def step(
    params_layer_0_weight,  # float32(3, 3)
    params_bias,  # float32(3,)
    x,  # float32(2, 3)
):
    # closed over: constant_0, float32(3,)
    # test_printing.py:N: `h = torch.tanh(x @ p["layer.0"]["weight"] + p["bias"])`
    mm = aten.mm(x, params_layer_0_weight)  # float32(2, 3)
    add = aten.add(mm, params_bias)  # float32(2, 3)
    tanh = aten.tanh(add)  # float32(2, 3)
    # test_printing.py:N: `return (h * TABLE).sum()`
    mul = aten.mul(tanh, constant_0)  # float32(2, 3)
    sum_1 = aten.sum(mul)  # float32()
    # test_printing.py:N: `value, g = value_and_grad(loss)(params, x)`
    full_like = aten.full_like(sum_1, 1.0)  # float32()
    # the gradient of test_printing.py:N: `return (h * TABLE).sum()`
    expand = aten.expand(full_like, [2, 3])  # float32(2, 3)
    mul_1 = aten.mul(expand, constant_0)  # float32(2, 3)
    # the gradient of test_printing.py:N: `h = torch.tanh(x @ p["layer.0"]["weight"] + p["bias"])`
    tanh_backward = aten.tanh_backward(mul_1, tanh)  # float32(2, 3)
    sum_2 = aten.sum(tanh_backward, [0], True)  # float32(1, 3)
    view = aten.view(sum_2, [3])  # float32(3,)
    t = aten.t(x)  # float32(3, 2)
    mm_1 = aten.mm(t, tanh_backward)  # float32(3, 3)
    # test_printing.py:N: `return {"loss": value, "bias": params["bias"] - 0.1 * g["bias"]}`
    mul_2 = aten.mul(view, 0.1)  # float32(3,)
    sub = aten.sub(params_bias, mul_2)  # float32(3,)
    return [
        sum_1,  # loss
        sub,  # bias
    ]
""",
    )


def test_writes_views_numbers_and_several_results():
    def f(x):
        y = x.clone()
        y[0].mul_(2)
        a, b = y.split(1)
        largest, _ = x.max(0)
        return [a * torch.tensor(2.5), b, largest.masked_fill(largest > 0, float("-inf")).double()]

    expecttest.assert_expected_inline(
        code(f, X),
        """\
def f(
    x,  # float32(2, 3)
):
    # test_printing.py:N: `y = x.clone()`
    clone = aten.clone(x)  # float32(2, 3)
    # test_printing.py:N: `y[0].mul_(2)`
    select = aten.select(clone, 0, 0)  # float32(3,)
    mul_ = aten.mul_(select, 2)  # float32(3,)
    # test_printing.py:N: `a, b = y.split(1)`
    split_0, split_1 = aten.split(clone, 1)  # float32(1, 3), float32(1, 3)
    # test_printing.py:N: `largest, _ = x.max(0)`
    max_1_0, max_1_1 = aten.max(x, 0)  # float32(3,), int64(3,)
    # test_printing.py:N: `return [a * torch.tensor(2.5), b, largest.masked_fill(largest > 0, float("-inf")).double()]`
    lift_fresh_copy = torch.tensor(2.5, dtype=torch.float32)  # float32()
    mul = aten.mul(split_0, lift_fresh_copy)  # float32(1, 3)
    gt = aten.gt(max_1_0, 0)  # bool(3,)
    masked_fill = aten.masked_fill(max_1_0, gt, float("-inf"))  # float32(3,)
    _to_copy = aten._to_copy(masked_fill, dtype=torch.float64)  # float64(3,)
    return [
        mul,  # 0
        split_1,  # 1
        _to_copy,  # 2
    ]
""",
    )


def test_a_loop_shows_its_body():
    def f(xs):
        return scan(lambda c, x: (c * 2 + x, c.sum()), torch.zeros(3), xs)

    expecttest.assert_expected_inline(
        code(f, X),
        """\
def f(
    xs,  # float32(2, 3)
):
    # test_printing.py:N: `return scan(lambda c, x: (c * 2 + x, c.sum()), torch.zeros(3), xs)`
    zeros = aten.zeros([3], device=torch.device("cpu"))  # float32(3,)
    def scan_body(
        carry_0,  # float32(3,)
        x_0,  # float32(3,)
        y_0,  # float32()
    ):
        # test_printing.py:N: `return scan(lambda c, x: (c * 2 + x, c.sum()), torch.zeros(3), xs)`
        mul = aten.mul(carry_0, 2)  # float32(3,)
        add = aten.add(mul, x_0)  # float32(3,)
        sum_1 = aten.sum(carry_0)  # float32()
        return [
            add,  # carry_0
            sum_1,  # y_0
        ]
    scan_0, scan_1 = scan(scan_body, 2, zeros, xs)  # float32(3,), float32(2,)
    return [
        scan_0,  # 0
        scan_1,  # 1
    ]
""",
    )


def test_a_layer_of_functrain_names_its_own_line_besides():
    model = nn.serial(nn.dense(2), nn.relu)
    params = {"0": {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}}
    text = code(lambda params, x: model.apply(params, {}, x)[0], params, X)
    assert "aten.addmm(params_0_bias, x, t)" in text
    assert re.search(r"# test_printing.py:N: `.*`, in functrain/nn/[\w/]+\.py:N: `.*F.linear", text)


def written(x):
    y = x.clone()
    y[0].mul_(2)
    y.t()[1] += TABLE[:2]
    return [y, y.sum()]


def many(x):
    q, r = torch.linalg.qr(x.t() @ x + torch.eye(3))
    return {"q": q, "r": (r, F.layer_norm(x, (3,))), "top": x.topk(2).values, "n": torch.tensor([1, 2]) + 1}


def numbers(x):
    return [x.clamp(min=-float("inf")), x.to(torch.float64) * 1e-300, torch.full((2,), float("nan")), x.new_zeros(2)]


@pytest.mark.parametrize("f", [written, many, numbers, lambda x: grad(lambda x: loss(P, x))(x)])
def test_what_is_printed_computes_what_the_graph_does(f):
    lowered = jit(f).lower(X)
    name = lowered.code.split("def ")[1].split("(")[0]
    closed = {n.target: getattr(lowered.graph, n.target) for n in lowered.graph.graph.find_nodes(op="get_attr")}
    scope = {"torch": torch, "aten": torch.ops.aten, **closed}
    exec(lowered.code, scope)
    torch.testing.assert_close(scope[name](X), list(lowered.graph(X)), rtol=0, atol=0, equal_nan=True)


def test_names_are_identifiers_and_differ():
    text = code(lambda class_, x_0, x: [class_ + x["0"], x_0], X, X + 1, {"0": X + 2})
    names = re.findall(r"^    (\w+),  # float32\(2, 3\)", text, re.MULTILINE)
    assert names == ["class_", "x_0", "x_0_1"]
