"""What a module holds: buffers as values, flags, frozen and tied parameters, what it keeps on itself."""

import copy

import pytest
import torch
from torch import Tensor
from torch import nn as tnn

import functrain as ft
from functrain import nn, random, tree
from functrain.errors import InvalidArgument, ShapeMismatch
from tests.interop import modules

X = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))


def trained(model, x=X, seed=0, weight=None):
    params, buffers = model.init(random.key(0), x)
    return model.apply(params, buffers, x, nn.training(random.key(seed), weight=weight))


def test_what_a_module_keeps_on_itself_is_gone_at_the_next_application():
    module = modules.Keeps()
    model = nn.from_module(module)
    params, buffers = model.init(random.key(0), X)
    first, second = (model.apply(params, buffers, X)[0] for _ in range(2))
    doubled, _ = model.apply(tree.map(lambda p: 2 * p, params), buffers, X)
    assert torch.equal(first, second) and torch.equal(doubled, 2 * first)
    assert module.cache == {} and module.calls == []
    grads = [ft.grad(lambda p: model.apply(p, buffers, X)[0].sum())(params)["scale"] for _ in range(2)]
    assert grads[0].any() and torch.equal(*grads)


def test_what_it_kept_before_with_a_gradient_is_refused_by_name_when_it_is_used():
    module = modules.Keeps()
    module(X)
    model = nn.from_module(module)
    with pytest.raises(InvalidArgument, match=r"the forward uses cache\.scale, which the module computed"):
        model.apply(*model.init(random.key(0), X), X)


def test_what_is_computed_by_eval_is_computed_of_the_parameters_applied():
    module = modules.CachesAtRest()
    module.eval()
    model = nn.from_module(module)
    params, buffers = model.init(random.key(0), X)
    moved = tree.map(lambda p: p + 1, params)
    assert torch.allclose(model.apply(moved, buffers, X)[0], X + 3 * moved["bias"])
    assert torch.allclose(model.apply(moved, buffers, X, nn.training(random.key(0)))[0], X + 3 * moved["bias"])


def test_a_cached_property_of_the_original_is_not_taken_over():
    import functools

    class Cached(tnn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = tnn.Parameter(torch.ones(4))

        @functools.cached_property
        def twice(self) -> Tensor:
            return self.scale.detach() * 2

        def forward(self, x: Tensor) -> Tensor:
            return x * self.twice

    module = Cached()
    module(X)
    model = nn.from_module(module)
    y, _ = model.apply({"scale": torch.full((4,), 5.0)}, {}, X)
    assert torch.equal(y, X * 10)


def test_flags_stay_and_a_module_at_rest_as_a_whole_is_trained():
    frozen = modules.FrozenNorm()
    _, buffers = trained(nn.from_module(frozen))
    assert int(buffers["norm"]["num_batches_tracked"]) == 0
    at_rest = tnn.Sequential(tnn.BatchNorm1d(4)).eval()
    _, buffers = trained(nn.from_module(at_rest))
    assert int(buffers["0"]["num_batches_tracked"]) == 1
    assert not at_rest.training and not frozen.norm.training


def test_frozen_parameters_are_among_the_buffers_and_tied_ones_appear_once():
    params, buffers = nn.from_module(modules.FrozenNorm()).init(random.key(0), X)
    assert sorted(params) == ["a", "norm"] and sorted(buffers["fixed"]) == ["bias", "weight"]
    tied = nn.from_module(modules.Tied())
    params, _ = tied.init(random.key(0), torch.zeros(1, 2, dtype=torch.int64))
    assert tree.paths(params) == ["embed.weight"]


def test_buffers_nobody_wrote_to_are_the_ones_passed_in():
    model = nn.from_module(modules.FrozenNorm())
    params, buffers = model.init(random.key(0), X)
    assert model.apply(params, buffers, X)[1] is buffers
    _, after = trained(nn.from_module(modules.Average()))
    assert int(after["count"]) == 1 and after["mean"].any()


WEIGHTS = torch.tensor([1.0, 2.0, 0.0, 1.0, 0.0, 3.0])


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("weight", [None, WEIGHTS])
def test_batch_norm_is_functrains_own(momentum, weight):
    ours, theirs = nn.batch_norm(momentum), nn.from_module(tnn.BatchNorm1d(4, momentum=momentum))
    for _ in range(2):
        y, after = trained(ours, weight=weight)
        z, now = trained(theirs, weight=weight)
        assert tree.differences((z, now), (y, after), atol=1e-6) == []


def test_rows_without_weight_have_no_influence():
    norms = tnn.BatchNorm1d(4), tnn.Unflatten(1, (2, 2)), tnn.InstanceNorm1d(2, track_running_stats=True)
    model = nn.from_module(tnn.Sequential(*norms))
    weight = torch.tensor([1.0, 1, 1, 1, 0, 0])
    noisy = torch.cat([X[:4], torch.full((2, 4), torch.nan)])
    y, after = trained(model, noisy, weight=weight)
    z, plain = trained(model, X[:4], weight=weight[:4])
    assert tree.differences((y[:4], after), (z, plain), atol=1e-5) == []


def test_weights_that_do_not_fit_the_rows_are_refused():
    model = nn.from_module(tnn.Sequential(tnn.Flatten(0, 1), tnn.BatchNorm1d(4)))
    with pytest.raises(ShapeMismatch, match="in layer 1: from_module: 1 normalises over a batch of 6 rows"):
        trained(model, X.reshape(3, 2, 4), weight=torch.ones(3))


def test_batch_norm_under_a_vmap_with_shared_buffers():
    model = nn.from_module(tnn.BatchNorm1d(4))
    params, buffers = model.init(random.key(0), X)
    batches = torch.stack([X, 2 * X, X + 1])
    f = lambda x: model.apply(params, buffers, x, nn.training(random.key(0)))  # noqa: E731
    assert tree.differences(ft.vmap(f)(batches), tree.stack([f(x) for x in batches]), atol=1e-5) == []


def test_lazy_modules_get_their_shapes_from_the_example():
    module = tnn.Sequential(tnn.LazyConv2d(4, 3), tnn.LazyBatchNorm2d(), tnn.Flatten(), tnn.LazyLinear(3))
    model, x = nn.from_module(module), torch.randn(2, 1, 6, 6)
    state = torch.get_rng_state()
    params, buffers = model.init(random.key(0), x)
    again, other = model.init(random.key(0), x)[0], model.init(random.key(1), x)[0]
    assert tree.equal(params, again) and not tree.equal(params, other)
    assert torch.equal(state, torch.get_rng_state()) and module[0].has_uninitialized_params()
    y, after = model.apply(params, buffers, x, nn.training(random.key(0)))
    own = tnn.Sequential(tnn.Conv2d(1, 4, 3), tnn.BatchNorm2d(4), tnn.Flatten(), tnn.Linear(64, 3))
    own.load_state_dict(nn.to_state_dict(params, buffers))
    assert torch.allclose(y, own(x), atol=1e-6)
    assert tree.differences(nn.to_state_dict(params, after), dict(own.state_dict()), atol=1e-6) == []


def test_fresh_values_come_from_the_key_by_the_modules_own_methods():
    module = tnn.Sequential(tnn.Linear(4, 4), tnn.MultiheadAttention(4, 2), tnn.BatchNorm1d(4), tnn.LSTM(4, 3))
    own = copy.deepcopy(module.state_dict())
    model = nn.from_module(module, fresh=True)
    a, again, b = (model.init(random.key(seed), X)[0] for seed in (0, 0, 1))
    assert tree.equal(a, again) and not tree.equal(a, b)
    assert tree.equal(dict(own), dict(module.state_dict()))
    bound = 4**-0.5
    assert a["0"]["weight"].abs().max() <= bound
    assert a["2"]["weight"].eq(1).all() and a["1"]["in_proj_bias"].eq(0).all()
    keys = random.split(random.key(0), 3)
    many = ft.vmap(lambda key: model.init(key, X))(keys)
    assert tree.equal(many, tree.stack([model.init(key, X) for key in keys]))
    longer = nn.from_module(tnn.Sequential(*[copy.deepcopy(part) for part in module], tnn.Linear(4, 1)), fresh=True)
    assert tree.equal(longer.init(random.key(0), X)[0]["0"], a["0"])


def test_the_modules_own_values_are_the_default_and_copies():
    module = tnn.Linear(4, 2)
    model = nn.from_module(module)
    params, _ = model.init(random.key(0), X)
    assert tree.equal(params, dict(module.state_dict()))
    with torch.no_grad():
        module.weight.zero_()
    params["weight"].fill_(7.0)
    again, _ = model.init(random.key(1), X)
    assert again["weight"].any() and not again["weight"].eq(7).any()


def test_inputs_outputs_and_methods():
    class Two(tnn.Module):
        def forward(self, a: Tensor, b: Tensor, scale: float = 1.0) -> dict[str, Tensor]:
            return {"sum": a + b * scale, "pair": (a, b)}  # type: ignore

        def encode(self, a: Tensor) -> Tensor:
            return a * 2

    one, two = torch.ones(2), torch.full((2,), 2.0)
    by = lambda x, **options: nn.from_module(Two(), **options).apply({}, {}, x)[0]  # noqa: E731
    assert torch.equal(by((one, two))["sum"], by({"a": one, "b": two})["sum"])
    assert torch.equal(by({"a": one, "b": two, "scale": 2.0}, out=lambda y: y["sum"]), one + 2 * two)
    assert torch.equal(by(one, method="encode"), two)

    class Sums(tnn.Module):
        def forward(self, parts: tuple[Tensor, ...]) -> Tensor:
            return parts[0] + parts[1]

    assert torch.equal(nn.from_module(Sums(), unpack=False).apply({}, {}, (one, two))[0], one + two)


def test_values_that_are_the_modules_own_parameters_may_be_applied():
    module = tnn.Linear(4, 2)
    model = nn.from_module(module)
    y, _ = model.apply(dict(module.named_parameters()), {}, X)
    assert torch.equal(y, module(X)) and y.requires_grad


@pytest.mark.parametrize("momentum", [0.1, None])
def test_batch_norm_at_rest_uses_and_keeps_its_statistics(momentum):
    module = torch.nn.BatchNorm1d(3, momentum=momentum)
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    for _ in range(3):
        module(x + 1)
    model = nn.from_module(module)
    params, buffers = model.init(random.key(0), x)
    y, after = model.apply(params, buffers, x)
    torch.testing.assert_close(y, module.eval()(x))
    assert tree.equal(after, buffers)
