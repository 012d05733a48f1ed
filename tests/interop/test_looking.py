"""summary, capture and to_module, for modules and functrain's own layers."""

import copy
import pickle
import re

import pytest
import torch
import torch.nn.utils.prune
from torch import nn as tnn

import functrain as ft
from functrain import nn, random, tree
from functrain.errors import InvalidArgument, TreeMismatch
from tests.interop import modules

X = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))


def pair() -> tuple[tnn.Module, nn.Model]:
    """A network as a module, and as functrain's layers."""
    module = tnn.Sequential(tnn.Linear(8, 4), tnn.ReLU(), tnn.Flatten(), tnn.Linear(20, 3))
    return module, nn.serial(nn.dense(4), nn.relu, nn.flatten, nn.dense(3))


def test_a_summary_counts_what_there_is():
    for model in (nn.from_module(pair()[0]), pair()[1]):
        rows = nn.summary(model, X).rows
        assert [row.path for row in rows] == ["0", "1", "2", "3", ""]
        assert [row.output for row in rows] == ["(2, 5, 4)", "(2, 5, 4)", "(2, 20)", "(2, 3)", "(2, 3)"]
        assert [row.parameters for row in rows] == [36, 0, 0, 63, 99]
        assert [row.multiply_adds for row in rows] == [2 * 5 * 8 * 4, 0, 0, 2 * 20 * 3, 440]
        assert rows[0].share == 36 / 99 and rows[-1].share == 1


def test_a_summary_agrees_with_pytorchs_own_count():
    from torch.utils.flop_counter import FlopCounterMode

    torch.manual_seed(0)
    layer = tnn.TransformerEncoderLayer(8, 2, 16, batch_first=True)  # trained, as at rest PyTorch counts less of it
    image = torch.randn(2, 1, 8, 8)
    for module, x in ((modules.resnet(), image), (modules.UNet(), image), (layer, X)):
        with FlopCounterMode(display=False) as counter:
            module(x)
        summary = nn.summary(nn.from_module(module), x)
        assert 2 * summary.rows[-1].multiply_adds == counter.get_total_flops()
        assert summary.rows[-1].parameters == sum(p.numel() for p in module.parameters())


def test_a_summary_computes_nothing_and_shows_as_a_table():
    model = nn.from_module(tnn.Sequential(tnn.Linear(8, 4)))
    summary = nn.summary(model, X)
    assert repr(summary).splitlines()[0].split() == ["path", "kind", "output", "parameters", "share", "multiply-adds"]
    assert "<td>Linear</td>" in summary._repr_html_()
    huge = nn.serial(nn.dense(10**6), nn.dense(10**6))  # 4 TB of weights
    assert nn.summary(huge, torch.zeros(1, 8)).rows[-1].parameters > 10**12


def test_captured_activations_are_those_of_hooks():
    torch.manual_seed(0)
    module = tnn.TransformerEncoder(tnn.TransformerEncoderLayer(8, 2, 16, dropout=0.0), 2, enable_nested_tensor=False)
    seen = {}
    for name, part in module.named_modules():
        if name.endswith("linear1"):
            part.register_forward_hook(lambda m, a, y, name=name: seen.update({name: y.detach()}))
    model = nn.capture(nn.from_module(module), "layers.*.linear1")
    params, buffers = model.init(random.key(0), X)
    (y, captured), _ = model.apply(params, buffers, X, nn.training(random.key(0)))
    assert torch.allclose(y, module(X), atol=1e-6)
    assert tree.differences(captured, seen, atol=1e-6) == []
    jitted, _ = ft.jit(lambda p, b, x: model.apply(p, b, x))(params, buffers, X)
    assert tree.differences(jitted, (y, captured), atol=1e-5) == []
    grads = ft.grad(lambda p: model.apply(p, buffers, X)[0][1]["layers.0.linear1"].sum())(params)
    assert grads["layers"]["0"]["linear1"]["weight"].any() and not grads["layers"]["1"]["linear1"]["weight"].any()


def test_a_layer_applied_twice_gives_both_and_models_nest():
    inner = nn.from_module(modules.Shared())
    model = nn.capture(nn.serial(nn.dense(4), nn.capture(inner, "norm"), head=lambda y: y[0]), ["1.drop", "0"])
    params, buffers = model.init(random.key(0), torch.zeros(1, 3))
    (_, seen), _ = model.apply(params, buffers, torch.ones(2, 3))
    assert len(seen["1.drop"]) == 2 and seen["0"].shape == (2, 4)


def test_a_captured_activation_stays_what_the_layer_returned():
    torch.manual_seed(0)
    module = tnn.Sequential(tnn.Linear(8, 4), tnn.ReLU(inplace=True), tnn.Linear(4, 3))
    model = nn.capture(nn.from_module(module), ["0", "1"])
    params, buffers = model.init(random.key(0), X)
    first = module[0](X)
    for apply in (model.apply, ft.jit(model.apply)):
        (y, seen), _ = apply(params, buffers, X)
        assert torch.allclose(seen["0"], first, atol=1e-6) and torch.allclose(seen["1"], first.relu(), atol=1e-6)
        assert torch.allclose(y, module(X), atol=1e-6)


def test_a_summary_of_what_draws_at_rest():
    class Noisy(tnn.Module):
        def forward(self, x):
            return x + torch.randn_like(x)

    assert [row.path for row in nn.summary(nn.from_module(tnn.Sequential(Noisy())), X).rows] == ["0", ""]


def test_a_module_with_a_value_computed_from_its_parameters_goes_back():
    torch.manual_seed(0)
    module = tnn.Sequential(tnn.Linear(8, 4), tnn.Linear(4, 3))
    tnn.utils.prune.l1_unstructured(module[0], "weight", 0.5)
    model = nn.from_module(module)
    params, buffers = model.init(random.key(0), X)
    made = nn.to_module(model, tree.map(lambda p: p + 1, params), buffers)
    expected, _ = model.apply(tree.map(lambda p: p + 1, params), buffers, X)
    for one in (made, copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert torch.allclose(one(X), expected, atol=1e-6)


def test_a_path_that_is_none():
    for model in map(lambda m: nn.capture(m, "4"), (nn.from_module(pair()[0]), pair()[1])):
        with pytest.raises(InvalidArgument, match="no layer that is applied has the path '4'; there are: 0, 1, 2, 3"):
            model.apply(*model.init(random.key(0), X), X)
    with pytest.raises(InvalidArgument, match="paths must be dotted paths of layers, got"):
        nn.capture(pair()[1], [])
    with pytest.raises(InvalidArgument, match="paths must be dotted paths of layers, got 3"):
        nn.capture(pair()[1], 3)  # pyright: ignore


@pytest.mark.parametrize("name", ["module", "own layers"])
def test_to_module_is_the_model_with_these_values(name):
    torch.manual_seed(0)
    origin = tnn.Sequential(tnn.Linear(8, 4), tnn.BatchNorm1d(5), tnn.Dropout(0.2), tnn.Flatten(), tnn.Linear(20, 3))
    own = nn.serial(nn.dense(4), nn.batch_norm(), nn.dropout(0.2), nn.flatten, nn.dense(3))
    model = nn.from_module(origin) if name == "module" else own
    params, buffers = model.init(random.key(0), X)
    params = tree.map(lambda p: p + 0.1, params)
    module = nn.to_module(model, params, buffers)
    y, _ = model.apply(params, buffers, X)
    assert list(module.state_dict()) == list(origin.state_dict()) and not module.training
    assert torch.allclose(module(X), y, atol=1e-6)
    origin.load_state_dict(module.state_dict())
    assert torch.allclose(origin.eval()(X), y, atol=1e-6)
    loaded = nn.from_state_dict(module.state_dict(), params, buffers)
    assert tree.equal(loaded, (params, buffers))
    exported = torch.export.export(module, (X,)).module()
    assert torch.allclose(exported(X), y, atol=1e-6)
    module.train()(X).sum().backward()
    assert all(p.grad is not None for p in module.parameters())
    assert int(module.state_dict()["1.num_batches_tracked"]) == 1
    assert torch.equal(model.apply(params, buffers, X)[0], y)


def test_a_module_made_of_a_model_is_its_own():
    module = modules.Tied()
    model, x = nn.from_module(module), torch.zeros(1, 2, dtype=torch.int64)
    params, buffers = model.init(random.key(0), x)
    made = nn.to_module(model, params, buffers)
    assert type(made) is modules.Tied and made.head.weight is made.embed.weight
    assert made.embed.weight is not module.embed.weight
    with torch.no_grad():
        made.embed.weight.zero_()
    assert params["embed"]["weight"].any() and module.embed.weight.any()
    with pytest.raises(TreeMismatch, match=re.escape("params lack embed.weight")):
        nn.to_module(model, {}, {})


def test_a_leaf_that_is_no_tensor():
    with pytest.raises(InvalidArgument, match="to_module: weight must be a tensor, got float"):
        nn.to_module(nn.dense(2), {"weight": 1.0}, {})


@pytest.mark.parametrize("name", ["forward", "training", "children", "type", "_params"])
def test_a_name_that_every_module_has_already(name):
    for model in (nn.serial(**{name: nn.dense(2)}), nn.layer("own", lambda x: {name: x[0]}, lambda p, x: x * p[name])):
        params, buffers = model.init(random.key(0), X)
        with pytest.raises(InvalidArgument, match=f"to_module: '{name}' is the name of a layer.*nn.named"):
            nn.to_module(model, params, buffers)
