"""What a trace cannot hold is refused where it happens, in words that name the user's line."""

import operator
import statistics

import pytest
import torch
import torch.nn.functional as F
from toolz import compose_left
from torch import Tensor

from functrain.engine.tracing.to_graph import trace
from functrain.errors import DeviceMismatch, DtypeMismatch, HiddenRandomness, LeakedTensor, NotTraceable, SideEffect
from tests.engine.functions_to_trace import of


def test_a_tensor_of_a_trace_that_is_over_is_refused():
    kept = []
    trace(lambda x: [kept.append(x) or x * 2], [of(2)])
    with pytest.raises(
        LeakedTensor, match=r"a tensor of another trace, which is over, is used at test_trace_refusals.py:\d+.*return"
    ):
        trace(lambda x: [x + kept[0]], [of(2)])
    assert repr(kept[0]) == f"{kept[0]}" == "Abstract(float32[2] on cpu)"
    for use in (lambda: kept[0] + 1, lambda: kept[0].data_ptr(), lambda: bool(kept[0][0])):
        with pytest.raises(LeakedTensor, match=r"a tensor of a trace that is over is used.*return it"):
            use()


class Labelled(Tensor):
    pass


def backward(x):
    with torch.enable_grad():
        (x * WEIGHT).sum().backward()
    return x


WEIGHT = torch.nn.Parameter(of(2))
REFUSED = {
    "a formatted value": (lambda x: [f"{x[0]:.2f}", x][1], NotTraceable, "Python looks at the values"),
    "data set": (lambda x: setattr(x * 1, "data", x), SideEffect, "the data of a tensor is changed in place"),
    "a sparse result": (lambda x: x.to_sparse().to_dense(), NotTraceable, "takes dense tensors, got layout sparse_coo"),
    "a sparse constant": (lambda x: SPARSE @ x, NotTraceable, "takes dense tensors, got layout sparse_coo.*to_dense"),
    "a subclass": (lambda x: x + LABELLED, NotTraceable, "takes plain tensors, got Labelled.*as_subclass"),
    "an out that grows": (lambda x: torch.mul(x, 2, out=torch.empty(0)), NotTraceable, "other memory in place.*out="),
    "make_fx inside": (
        lambda x: torch.func.linearize(lambda x: x**2, x)[1](x),
        NotTraceable,
        "make_fx, which torch.func.linearize uses too, runs inside a trace",
    ),
    "backward": (backward, SideEffect, r"backward\(\) writes into the grad of a tensor closed over.*value_and_grad"),
}
SPARSE, LABELLED = torch.eye(2).to_sparse(), of(2).as_subclass(Labelled)


@pytest.mark.filterwarnings("ignore:.*resized.*:UserWarning", "ignore:`torch.jit")
@pytest.mark.parametrize("name", REFUSED)
def test_what_a_trace_cannot_hold_is_refused_in_words(name):
    f, error, words = REFUSED[name]
    with pytest.raises(error, match=words):
        trace(lambda x: [f(x)], [of(2)])
    assert WEIGHT.grad is None


def test_literals_have_values_and_what_depends_on_arguments_has_none():
    gm = trace(lambda x: [x * float(torch.tensor(3.0))], [of(2)]).gm
    assert torch.equal(gm(of(2))[0], of(2) * 3)
    with pytest.raises(NotTraceable, match=r"Python looks at the values of a tensor at test_trace_refusals.py:\d+"):
        trace(lambda x: [x * float(x[0])], [of(2)])
    for look in (lambda x: x.tolist(), lambda x: x.numpy(), lambda x: bool(x.sum() > 0), lambda x: x.data_ptr()):
        with pytest.raises(NotTraceable, match="Python looks at the values of a tensor"):
            trace(lambda x, look=look: [look(x) and x], [of(2)])


@pytest.mark.parametrize("look", [torch.nonzero, torch.unique, lambda x: x[x > 0], lambda x: x.masked_select(x > 0)])
def test_a_shape_that_depends_on_values_is_refused(look):
    with pytest.raises(
        NotTraceable, match=r"the shape of a result depends on the values of a tensor, at test_trace_refusals.py"
    ):
        trace(lambda x: [look(x)], [of(4)])


@pytest.mark.parametrize(
    "product", [operator.matmul, torch.mm, torch.mv, torch.bmm, F.linear, F.conv1d, lambda x, w: F.linear(x, w, x[0])]
)
def test_products_of_two_dtypes_are_refused_when_traced(product):
    shape = {torch.mv: (2, 2), torch.bmm: (2, 2, 2), F.conv1d: (2, 2, 2)}.get(product, (2, 2))
    x, w = torch.ones(shape, dtype=torch.float64), torch.ones(shape[:1] if product is torch.mv else shape)
    with pytest.raises(RuntimeError):
        product(x, w)
    with pytest.raises(DtypeMismatch, match=r"takes tensors of one dtype, got .*float64.*tree\.to"):
        trace(lambda x, w: [product(x, w)], [x, w])


def test_a_message_names_the_users_line_and_not_that_of_toolz():
    chained = compose_left(lambda x: x + 1, lambda x: float(x.sum()))
    with pytest.raises(NotTraceable, match=r"at test_trace_refusals.py:"):
        trace(lambda x: [chained(x)], [torch.ones(2)])
    with pytest.raises(NotTraceable, match=r"at test_trace_refusals.py:"):
        trace(compose_left(torch.sum, float), [torch.ones(2)])


def test_devices_meet_by_pytorchs_rule():
    far, near = torch.ones(2, device="meta"), torch.ones(())
    gm = trace(lambda x, s: [x * s, s * x, x + 1], [far, near]).gm
    assert {str(n.meta["val"].device) for n in gm.graph.nodes if n.op == "call_function"} == {"meta"}
    with pytest.raises(
        DeviceMismatch, match=r"add.* combines tensors on meta and cpu, at test_trace_refusals.*tree\.to"
    ):
        trace(lambda x, y: [x + y], [far, torch.ones(2)])


def test_a_write_into_an_argument_or_its_view_is_refused_where_it_happens():
    for write in (lambda x: x.add_(1), lambda x: x[0].zero_(), lambda x: x.view(-1).mul_(2), lambda x: x.t_()):
        with pytest.raises(SideEffect, match=r"the weights is changed in place at test_trace_refusals.py:\d+"):
            trace(lambda x, write=write: [write(x)], [of(2, 2)], ["the weights"])


@torch.library.custom_op("functrain_tests::noisy", mutates_args=())
def noisy(x: Tensor) -> Tensor:
    return x + torch.rand(x.shape)


noisy.register_fake(torch.empty_like)


def test_an_operator_of_the_users_that_draws_is_refused_each_time_and_leaves_the_generator_as_it_was():
    before = torch.get_rng_state()
    for _ in range(2):
        with pytest.raises(HiddenRandomness, match=r"functrain_tests::noisy draws from .* at test_trace_refusals.py"):
            trace(lambda x: [noisy(x)], [of(2, 2)])
    assert torch.equal(torch.get_rng_state(), before)


def test_the_line_of_a_message_is_not_pythons_own():
    with pytest.raises(NotTraceable, match=r"at test_trace_refusals.py:"):
        trace(lambda x: [torch.tensor(statistics.fmean(x))], [of(3)])
