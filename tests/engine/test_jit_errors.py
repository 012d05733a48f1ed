"""What `jit` cannot do it says: which argument or line, and what to do instead."""

import pytest
import torch

from functrain.engine import jit
from functrain.errors import (
    DeviceMismatch,
    HiddenRandomness,
    InvalidArgument,
    NonTensorOutput,
    NotATensor,
    NotTraceable,
    SideEffect,
    UnhashableStatic,
)


def of(*shape):
    return torch.arange(float(torch.Size(shape).numel())).reshape(shape) / 7


def test_static_arguments_are_whole_and_hashable():
    f = jit(lambda x, names: x * len(names), static="names")
    assert f(of(2), ("a", "b")).tolist() == (2 * of(2)).tolist()
    with pytest.raises(
        UnhashableStatic, match="names is not a tensor, so it is static, and must be hashable: got list"
    ):
        f(of(2), ["a"])


def test_unhashable_leaf():
    with pytest.raises(UnhashableStatic, match=r"config\.sizes .*got set"):
        jit(lambda x, config: x)(of(2), {"sizes": {1, 2}})


def control_flow(x):
    if x.sum() > 0:
        return x
    return -x


@pytest.mark.parametrize(
    ("f", "line"),
    [
        (control_flow, r"if x\.sum\(\) > 0:"),
        (lambda x: x * float(x.sum()), "float"),
        (lambda x: x * x.sum().item(), "item"),
        (lambda x: torch.tensor(x.tolist()), "tolist"),
        (lambda x: torch.from_numpy(x.numpy()), "numpy"),
    ],
)
def test_a_decision_by_values_names_the_line_and_the_remedy(f, line):
    with pytest.raises(NotTraceable, match=rf"test_jit_errors\.py:\d+: `.*{line}.*torch\.where.*scan"):
        jit(f)(of(3))


def test_a_shape_that_depends_on_values():
    with pytest.raises(NotTraceable, match=r"depends on the values.*test_jit_errors\.py:\d+.*torch\.where"):
        jit(lambda x: x[x > 0])(of(3))


def change(d):
    d["w"].add_(1)
    return d["w"]


def test_a_side_effect_names_the_argument_and_the_line_and_does_nothing():
    w = of(3)
    with pytest.raises(
        SideEffect, match=r"d\.w is changed in place at test_jit_errors\.py:\d+: `d\[\"w\"\]\.add_\(1\)`"
    ):
        jit(change)({"w": w})
    assert torch.equal(w, of(3))
    with pytest.raises(SideEffect, match="a tensor closed over is changed in place"):
        jit(lambda x: w.add_(x))(of(3))
    with pytest.raises(SideEffect, match="x is changed in place"):
        jit(lambda x: x.view(-1)[0].zero_())(of(3))


@pytest.mark.parametrize(
    "draw", [lambda x: x + torch.rand(3), lambda x: torch.nn.functional.dropout(x), torch.bernoulli]
)
def test_hidden_randomness(draw):
    with pytest.raises(HiddenRandomness, match=r"draws from PyTorch's global generator.*functrain\.random"):
        jit(draw)(of(3).clamp(0, 1))


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (1.5, r"returned float: 1\.5; under jit"),
        ({"a": {"b": "text"}}, r"returned str at a\.b: 'text'"),
        ([object()], "returned object at 0"),
    ],
)
def test_a_result_that_is_no_tensor(result, message):
    with pytest.raises(NonTensorOutput, match=message):
        jit(lambda x: result)(of(2))


def test_mixed_devices():
    with pytest.raises(DeviceMismatch, match=r"cpu and meta.*test_jit_errors\.py.*tree\.to"):
        jit(lambda x, y: x + y)(of(2), torch.ones(2, device="meta"))


def test_an_error_of_the_function_keeps_its_type_and_gets_a_note():
    def broken(x):
        raise KeyError("mine")

    with pytest.raises(KeyError) as caught:
        jit(broken)(of(2))
    assert "while jit traced" in caught.value.__notes__[0]


def test_an_error_of_shapes_is_short_and_names_the_line(capfd):
    with pytest.raises(RuntimeError) as caught:
        jit(lambda x: x @ torch.ones(7))(of(3))
    assert "test_jit_errors.py" in caught.value.__notes__[0]
    assert "Traceback" not in capfd.readouterr().err


def test_after_an_error_the_function_works():
    f = jit(lambda x: x @ torch.ones(3))
    with pytest.raises(RuntimeError):
        f(of(4))
    assert f(torch.ones(3)) == 3
    assert len(f.traces) == 1


class Marked(torch.Tensor):
    pass


def test_tensor_subclasses_are_refused_by_name():
    with pytest.raises(NotATensor, match=r"x: jit takes plain tensors, got Marked; use as_subclass"):
        jit(lambda x: x + 1)(of(2).as_subclass(Marked))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "xla"}, "backend must be one of 'aten', 'inductor', 'cudagraph', 'replay', got 'xla'"),
        ({"donate": -1}, "donate must be positions from 0 or names"),
        ({"donate": "z"}, r"donate: .* has no argument 'z'"),
        ({"donate": 0, "static": "x"}, "both donated and static"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(InvalidArgument, match=message):
        jit(lambda x: x, **options)


def test_wrong_function():
    with pytest.raises(InvalidArgument, match="f must be a function, got int"):
        jit(3)
