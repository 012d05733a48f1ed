"""Short, pure, ordinary programs that once gave wrong numbers, or a raw error, under `jit`."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import functrain as ft
from functrain import tree
from functrain.engine.graph.scan_node import lift_constants
from functrain.errors import NotTraceable

X = torch.arange(6.0).reshape(2, 3)
C = torch.ones(3)


def scores(x, w):
    q, k = x @ w, (x @ w).t()
    return (q * 0.5) @ k


def read_before_written(x):
    y = C * 2
    w = y.exp()
    y.mul_(4)
    return w * y + x


def closed_over_clone(x):
    y = C.clone()
    y.mul_(2)
    return x + y


def batch_norm_of_clones(m, v):
    m, v = m.clone(), v.clone()
    return F.batch_norm(X, m, v, training=True), m, v


def written_slice_of_closed_over(x):
    m = C.clone()
    m[1:] = x[1:]
    return m * x


def asks_for_layout(x):
    y = F.pad(x, (1, 1, 1, 1), "reflect")
    return y.reshape(2, -1) if y.is_contiguous() else y.reshape(2, -1) + 1


def written_through_views(x):
    y = x.clone()
    a, b = y.t(), y[0]
    a[1:].mul_(3)
    b.add_(a[:, 1].sum())
    return y, a * 2, b.exp()


def reshaped_in_place(x):
    y = x.clone()
    z = y[0]
    y.unsqueeze_(0)
    y.add_(1)
    return y, z * 2


def swapped(x):
    y = x.clone()
    y[0], y[1] = y[1].clone(), y[0].clone()
    return y


def into_out(x):
    y = torch.empty(2, 3)
    torch.mul(x, 3, out=y)
    return y + 1


def complex_view(x):
    z = torch.complex(x, x)
    torch.view_as_real(z)[..., 0].zero_()
    z.conj()[0].mul_(2j)
    return torch.view_as_real(z).clone(), z.real * 2


def ctc_of_tensors(x):
    return F.ctc_loss(x, LABELS, LENGTHS, LENGTHS - 3)


def inside_autocast(x):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = x @ x
        with torch.autocast("cpu", enabled=False):
            return y, x @ x, F.scaled_dot_product_attention(x[None], x[None], x[None])


def overlapping_write(x):
    y = x.clone()
    y.sub_(y[0])
    return y


LSTM = torch.nn.LSTM(4, 5, 2)
PARAMETERS = {name: p.detach() for name, p in LSTM.named_parameters()}
WINDOW, LABELS, LENGTHS = torch.hann_window(16), torch.tensor([[1, 2], [2, 3]]), torch.tensor([5, 4])


def lstm_gradient(p, x):
    return ft.grad(lambda p: torch.func.functional_call(LSTM, p, (x,))[0].sum())(p)


channels_last = torch.randn(2, 3, 5, 5).to(memory_format=torch.channels_last)

CASES = {
    "written transpose of a clone": (lambda x: x.clone().t() * 0.5, (torch.ones(2, 2),)),
    "two readers of one product": (scores, (torch.randn(4, 3), torch.randn(3, 5))),
    "read before written": (read_before_written, (torch.ones(3),)),
    "closed over clone": (closed_over_clone, (torch.ones(3),)),
    "batch norm of clones": (batch_norm_of_clones, (torch.zeros(3), torch.ones(3))),
    "as_strided at an offset": (
        lambda x: x.as_strided((2,), (1,), x.storage_offset()),
        (torch.arange(20.0)[10:],),
    ),
    "as_strided of a clone": (
        lambda x: (x.clone().as_strided((2,), (2,)), (x * 2).as_strided((2, 2), (0, 1), 1)),
        (torch.arange(20.0)[10:],),
    ),
    "statistics of bfloat16": (
        lambda x: torch.native_layer_norm(x, [3], None, None, 1e-5)[1].float(),
        (torch.randn(2, 3, dtype=torch.bfloat16),),
    ),
    "slice of a closed over clone": (written_slice_of_closed_over, (torch.ones(3) * 2,)),
    "reflection of channels_last": (asks_for_layout, (channels_last,)),
    "pixel_shuffle by 1": (lambda x: F.pixel_shuffle(x, 1).reshape(2, -1), (torch.randn(2, 3, 4, 4),)),
    "conv1d of a transposed weight": (
        lambda x, w: F.conv1d(x, w.transpose(0, 1)).reshape(2, -1),
        (torch.randn(2, 3, 8), torch.randn(3, 4, 3)),
    ),
    "writes and returns something new": (
        lambda x, m: torch.ops.aten._native_batch_norm_legit(x, None, None, m.clone(), m.clone(), True, 0.1, 1e-5)[0],
        (torch.randn(4, 3), torch.ones(3)),
    ),
    "deepcopy": (lambda x: copy.deepcopy(x) * 2, (X,)),
    "rrelu at rest": (lambda x: F.rrelu(x, training=False), (X - 2,)),
    "cat of nothing": (lambda x: x + torch.cat([torch.zeros(0), x[0]]).sum(), (X,)),
    "margin loss of one class": (
        lambda x: ft.grad(lambda x: F.multi_margin_loss(x, torch.zeros(2, dtype=torch.long)))(x),
        (torch.randn(2, 1),),
    ),
    "lstsq": (lambda x: torch.linalg.lstsq(x @ x.t(), x)[0], (torch.eye(3),)),
    "covariance": (lambda x: (torch.cov(x), torch.corrcoef(x)), (torch.randn(3, 5),)),
    "gaussian_nll_loss": (
        lambda x, v: [F.gaussian_nll_loss(x, x + 1, v, full=True), ft.grad(lambda v: F.gaussian_nll_loss(x, x, v))(v)],
        (X, torch.tensor([[1.0, 1e-9, 2], [3, 0, 4]])),
    ),
    "repeat_interleave to a size": (
        lambda x, n: torch.repeat_interleave(x, n, dim=0, output_size=3),
        (X, torch.tensor([1, 2])),
    ),
    "instance_norm at rest": (
        lambda x, m, v: F.instance_norm(x, m, v, use_input_stats=False),
        (torch.randn(2, 3, 4), torch.zeros(3), torch.ones(3)),
    ),
    "istft": (
        lambda x: torch.istft(torch.stft(x, 16, window=WINDOW, return_complex=True), 16, window=WINDOW),
        (torch.randn(64),),
    ),
    "packed sequence": (
        lambda x: torch.nn.utils.rnn.pack_padded_sequence(x, torch.tensor([3, 2]), batch_first=True).data,
        (torch.randn(2, 3, 4),),
    ),
    "gradient of an LSTM": (lstm_gradient, (PARAMETERS, torch.randn(3, 2, 4))),
    "ctc_loss": (
        lambda x: [F.ctc_loss(x, LABELS, (5, 5), (2, 2)), ft.grad(ctc_of_tensors)(x)],
        (torch.randn(5, 2, 4).log_softmax(-1),),
    ),
    "float32 inside autocast": (inside_autocast, (torch.randn(4, 4),)),
    "a copy at an offset, read as other numbers": (
        lambda x: (torch.view_as_complex(x[1:].clone().view(4, 2)).sum(), x[1:].clone().view(torch.float64)),
        (torch.arange(9.0),),
    ),
    "as_strided of a copy, from the beginning": (
        lambda x: x.clone().as_strided((2,), (1,), 0),
        (torch.arange(5.0)[1:],),
    ),
    "factors that half precision has not": (
        lambda a, b: (a + b * 1e-8, a + b * 1e6, a - a.float() * 1e39),
        (torch.ones(2).half(), torch.full((2,), 1e-3).half()),
    ),
    "a product added to itself": (lambda x: (x * 2 + 2 * x, x @ x + x @ x), (torch.ones(150, 150),)),
    "sum of all axes, kept": (lambda x: torch.sum(x, dim=None, keepdim=True).view(1) * 2, (X,)),
    "ldexp in place": (lambda x: x.clone().ldexp_(torch.tensor(2)), (X,)),
    "polygamma in place": (lambda x: x.clone().polygamma_(1), (X + 1,)),
    "a write that overlaps what it reads": (overlapping_write, (torch.arange(16.0).view(4, 4).t(),)),
    "writes through views": (written_through_views, (X,)),
    "reshaped in place": (reshaped_in_place, (X,)),
    "swapped rows": (swapped, (X,)),
    "out=": (into_out, (X,)),
    "views of complex numbers": (complex_view, (X,)),
}


def same(a, b):
    return tree.differences(a, b, rtol=1e-5, atol=1e-6) == []


@pytest.mark.parametrize("name", CASES)
def test_the_graph_means_what_the_function_meant(name):
    f, args = CASES[name]
    before, closed = tree.map(torch.clone, (args, C))
    expected = f(*args)
    compiled = ft.jit(f)
    for _ in range(3):
        assert same(compiled(*args), expected)
    assert tree.equal((args, C), (before, closed))


@pytest.mark.parametrize("threads", [1, 2])
def test_a_product_is_not_added_to_what_it_reads(threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        p, b = torch.randn(130, 130), torch.randn(130, 130)
        expected = p - 0.1 * (p @ (p @ b))
        found = ft.jit(lambda p, b: p - 0.1 * (p @ (p @ b)), donate=0)(p, b)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)
    finally:
        torch.set_num_threads(before)


def test_static_values_are_compared_by_type_in_containers_too():
    f = ft.jit(lambda x, k: x + k[0], static="k")
    assert f(torch.tensor([3]), (1,)).dtype is torch.int64
    assert f(torch.tensor([3]), (1.0,)).dtype is torch.float32
    assert f(torch.tensor([3]), (True,)).dtype is torch.int64


def test_a_closed_over_tensor_keeps_its_gradient():
    x3 = torch.tensor(3.0)
    assert ft.grad(lambda w: ft.jit(lambda x: w * x)(x3))(torch.tensor(2.0)) == 3
    inner = {}
    compiled = ft.jit(lambda x: inner["w"] * x)

    def outer(w):
        inner["w"] = w
        return compiled(x3)

    assert compiled is not None and ft.grad(outer)(torch.tensor(2.0)) == 3
    assert ft.grad(lambda x: ft.grad(outer)(torch.tensor(2.0)) * x)(torch.tensor(1.0)) == 3


def test_what_is_donated_and_returned_as_it_is_can_be_used():
    state = {"w": torch.arange(12.0).reshape(3, 4).t()[::2]}
    expected = state["w"].clone()
    new = ft.jit(lambda s: {"w": s["w"].detach()}, donate=0)(state)
    assert isinstance(new["w"], Tensor) and torch.equal(new["w"], expected)


def test_a_copy_that_is_returned_is_new_memory():
    x = torch.ones(3)
    for f in (lambda x: x.clone(), lambda x: C.clone(), lambda x: (x.clone(), x.clone())[0]):
        compiled = ft.jit(f)
        compiled(x)
        compiled(x).zero_()
        assert torch.equal(x, torch.ones(3)) and torch.equal(C, torch.ones(3))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "f",
    [
        lambda x: torch.cond(x.sum() > 0, lambda x: x + 1, lambda x: x - 1, (x,)),
        lambda x: torch.while_loop(lambda x: x.sum() < 10, lambda x: (x + 1,), (x,)),
        lambda x: torch.compile(lambda x: x + 1)(x),
    ],
    ids=["cond", "while_loop", "compile"],
)
def test_what_stands_on_torch_compile_is_refused_in_words(f):
    with pytest.raises(NotTraceable, match=r"torch\.compile, or what stands on it"):
        ft.jit(f)(torch.ones(2))


def test_a_negative_variance_is_refused_when_it_runs():
    f = ft.jit(lambda x, v: F.gaussian_nll_loss(x, x, v))
    f(torch.ones(2), torch.ones(2))
    with pytest.raises(RuntimeError, match="negative entry"):
        f(torch.ones(2), -torch.ones(2))


def test_autocast_around_a_call_converts_nothing_twice():
    def f(x):
        with torch.autocast("cpu", enabled=False):
            return x @ x

    x = torch.randn(4, 4)
    compiled = ft.jit(f)
    for _ in range(2):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert compiled(x).dtype is torch.float32
            assert torch.equal(compiled(x), f(x))
    y = torch.randn(2, 3, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ft.jit(lambda x: F.scaled_dot_product_attention(x, x, x))(y)
    assert ft.jit(lambda x: F.scaled_dot_product_attention(x, x, x))(y).dtype is torch.float32


def test_a_donated_argument_that_is_copied_keeps_its_place_in_memory():
    f = ft.jit(lambda a: (a, torch.as_strided(a, (2,), (4,)) + 0), donate=0)
    whole = torch.arange(16.0).view(4, 4)
    kept, seen = f(whole[:, :2])
    assert seen.tolist() == [0, 4] and kept.stride() == (4, 1)


def test_a_donated_argument_returned_through_a_view_can_be_used():
    result = ft.jit(lambda x: x.reshape(4, -1), donate=0)(torch.arange(16.0).view(4, 4)[:, :2].clone()[::2][:, :2])
    assert result.tolist() == [[0], [1], [8], [9]]
    dense_not = torch.arange(16.0).view(4, 4)[:, :2]
    assert ft.jit(lambda x: x.reshape(4, -1), donate=0)(dense_not)[1].tolist() == [4, 5]


def test_constants_that_are_lifted_twice_have_names_of_their_own():
    graph = torch.fx.Graph()
    x = graph.placeholder("x")
    inner = graph.call_function(torch.sub, (x, graph.get_attr("a")))
    graph.output(graph.call_function(torch.mul, (inner, graph.get_attr("b"))))
    gm = torch.fx.GraphModule({"a": torch.ones(2), "b": torch.full((2,), 2.0)}, graph)
    inner, x = next(node for node in gm.graph.nodes if node.op == "call_function"), next(iter(gm.graph.nodes))
    lift_constants(gm)
    dropped = inner.args[1]
    gm.register_buffer("c", torch.full((2,), 3.0))
    with gm.graph.inserting_before(inner):  # what passes may do in between: an argument goes, a constant comes
        inner.args = (x, gm.graph.get_attr("c"))
    gm.graph.erase_node(dropped)
    lift_constants(gm)
    values = {"x": torch.zeros(2)}
    names = [node.target for node in gm.graph.nodes if node.op == "placeholder"]
    assert len(set(names)) == len(names) == 3
    left = [name for name in names if name != "x"]
    results = [
        gm(**values, **dict(zip(left, order, strict=True)))
        for order in ((torch.tensor(2.0), torch.tensor(3.0)), (torch.tensor(3.0), torch.tensor(2.0)))
    ]
    assert any(torch.equal(result, torch.full((2,), -6.0)) for result in results)
