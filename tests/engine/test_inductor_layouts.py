"""What Inductor returns has the layouts of eager execution, conjugated views among them."""

import pytest
import torch

from functrain.engine import grad, jit
from functrain.engine.backends.inductor import compiling as inductor
from functrain.engine.backends.inductor.channels import channels_as_they_are, outweighs
from functrain.engine.backends.inductor.layouts import Layouts, lay_out
from functrain.engine.tracing.to_graph import trace

CUBE = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
LAYOUTS = [
    CUBE,
    CUBE.permute(2, 0, 1),
    CUBE[:, ::2],
    CUBE[:1].expand(5, 3, 4),
    CUBE[0, :1, :1].expand(3, 4),
    CUBE[..., :0],
    torch.complex(CUBE, CUBE).conj(),
    torch.complex(CUBE, CUBE).conj().transpose(0, 2),
    torch.complex(CUBE, CUBE).conj().imag,
]


@pytest.mark.parametrize("like", LAYOUTS)
def test_values_are_laid_out_as_they_must_be(like):
    dense = like.resolve_conj().resolve_neg().contiguous()
    made = lay_out(dense, like)
    assert torch.equal(made, like)
    assert (made.stride(), made.is_conj(), made.is_neg()) == (like.stride(), like.is_conj(), like.is_neg())


def test_a_result_in_other_strides_is_laid_out_anew_at_each_call(monkeypatch):
    def f(x):
        return [x.t() * 2, x + 1]

    traced = trace(f, [CUBE[0]])
    monkeypatch.setattr(inductor, "_compile", lambda *_: lambda inputs: [t.contiguous() for t in f(*inputs)])
    monkeypatch.setattr(inductor.artifact, "load", lambda key: None)
    step = inductor.compile(traced.gm, traced.inputs)
    for _ in range(2):
        ours, expected = step([CUBE[0]]), f(CUBE[0])
        assert all(torch.equal(o, e) and o.stride() == e.stride() for o, e in zip(ours, expected, strict=True))


def test_after_a_first_call_that_fits_nothing_is_compared_any_more():
    layouts = Layouts([CUBE, CUBE[0].t()])
    layouts.apply([CUBE, CUBE[0].t()])
    assert not layouts


def test_conjugated_views_in_and_out(monkeypatch, tmp_path):
    monkeypatch.setenv("FUNCTRAIN_CACHE", str(tmp_path))

    def f(c, d):
        return c * 2, (d.conj() * c).abs(), (c + d).conj(), (c * d).t(), d.imag * 1

    c = torch.randn(3, 3, dtype=torch.complex64, generator=torch.Generator().manual_seed(1))
    for arguments in ((c.conj(), c), (c.conj(), c.t().conj())):
        ours, expected = jit(f, backend="inductor")(*arguments), f(*arguments)
        torch.testing.assert_close(ours, expected)
        assert [(o.stride(), o.is_conj()) for o in ours] == [(e.stride(), e.is_conj()) for e in expected]


def update(weight, x):
    def loss(weight):
        return torch.tanh(torch.conv2d(x, weight, padding=1)).square().sum()

    return weight - 0.1 * grad(loss)(weight)


IMAGES = torch.randn(2, 8, 16, 16, generator=torch.Generator().manual_seed(2))
WEIGHT = torch.randn(8, 8, 3, 3, generator=torch.Generator().manual_seed(3)) / 8


@pytest.mark.parametrize("size, fewer", [(4, True), (16, False)])
def test_channels_stay_first_where_weights_outweigh_what_convolutions_return(size, fewer):
    from torch._inductor import config

    graph = trace(lambda *inputs: [update(*inputs)], [WEIGHT, IMAGES[..., :size, :size].clone()]).gm.graph
    assert outweighs(graph) is fewer
    assert config.layout_optimization
    with channels_as_they_are(graph):
        assert config.layout_optimization is not fewer
    with config.patch(force_layout_optimization=True), channels_as_they_are(graph):
        assert config.layout_optimization
    assert config.layout_optimization


def test_a_graph_without_convolutions_is_left_to_inductor():
    assert not outweighs(trace(lambda x: [x @ x], [torch.ones(2, 2)]).gm.graph)


def test_an_update_of_few_small_images_is_right(monkeypatch, tmp_path):
    monkeypatch.setenv("FUNCTRAIN_CACHE", str(tmp_path))
    images = IMAGES[..., :4, :4].clone()
    made = jit(update, backend="inductor")(WEIGHT, images)
    assert torch.allclose(made, update(WEIGHT, images), atol=1e-5) and made.stride() == WEIGHT.stride()
