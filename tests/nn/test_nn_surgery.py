"""freeze, lora and merged, on functrain's own layers and on modules."""

import pytest
import torch
from torch import Tensor
from torch import nn as tnn

import functrain as ft
from functrain import nn, random, tree
from functrain.errors import DuplicateName, InvalidArgument, TreeMismatch

X = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))


class Net(tnn.Module):
    """Convolution, batch norm, LSTM and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.body = tnn.Sequential(tnn.Conv2d(1, 4, 3), tnn.BatchNorm2d(4), tnn.ReLU(), tnn.Flatten())
        self.lstm, self.head = tnn.LSTM(144, 5, batch_first=True), tnn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(self.body(x).unsqueeze(1))[0][:, -1])


def own_layers() -> nn.Model:
    body = nn.serial(nn.conv(4, 3), nn.batch_norm(), nn.relu, nn.flatten, nn.dense(5))
    return nn.serial(body=body, head=nn.dense(3))


@pytest.fixture(params=["module", "own layers"])
def model(request) -> nn.Model:
    torch.manual_seed(0)
    return nn.from_module(Net()) if request.param == "module" else own_layers()


def step(model):
    def f(params, buffers, key):
        def loss(params):
            y, after = model.apply(params, buffers, X, nn.training(key))
            return ((y - 1) ** 2).mean(), after

        (value, after), grads = ft.value_and_grad(loss, has_aux=True)(params)
        return tree.map(lambda p, g: p - 0.1 * g, params, grads), after, value

    return f


def test_a_frozen_part_stays_and_the_rest_goes_as_before(model):
    params, buffers = model.init(random.key(0), X)
    frozen = nn.freeze(model, "body.*")
    trained, held = frozen.init(random.key(0), X)
    assert "body" not in trained and tree.equal(held["frozen"]["body"], params["body"])
    moved, after, value = step(frozen)(trained, held, random.key(1))
    all_moved, all_after, all_value = step(model)(params, buffers, random.key(1))
    assert torch.equal(value, all_value)
    assert tree.equal(after["frozen"], held["frozen"])
    assert tree.differences(moved, {name: all_moved[name] for name in moved}, atol=1e-7) == []
    back, rest = nn.merge(frozen, moved, after)
    assert tree.equal(back["body"], params["body"]) and tree.equal(rest, all_after)
    assert tree.paths(back) == tree.paths(params)


def test_a_predicate_and_several_patterns_freeze(model):
    by_predicate = nn.freeze(model, lambda path: not path.startswith("head"))
    by_patterns = nn.freeze(model, ["body.*", "lstm.*"])
    assert tree.equal(by_predicate.init(random.key(0), X), by_patterns.init(random.key(0), X))
    assert list(by_predicate.init(random.key(0), X)[0]) == ["head"]


def test_lora_begins_as_the_model_trains_its_factors_alone_and_merges(model):
    params, buffers = model.init(random.key(0), X)
    adapted = nn.lora(model, rank=2, where="body.*", alpha=4.0, train="head.*")
    factors, held = adapted.init(random.key(0), X)
    assert {path.rpartition(".")[2] for path in tree.paths(factors["body"])} == {"lora_down", "lora_up"}
    assert tree.equal(adapted.apply(factors, held, X)[0], model.apply(params, buffers, X)[0])
    fast = ft.jit(step(adapted))
    for number in range(3):
        eager = step(adapted)(factors, held, random.key(number))
        factors, held, _ = jitted = fast(factors, held, random.key(number))
        assert tree.differences(jitted, eager, rtol=1e-4, atol=1e-6) == []
    merged, rest = nn.merge(adapted, factors, held)
    y, _ = model.apply(merged, rest, X)
    assert torch.allclose(y, adapted.apply(factors, held, X)[0], atol=1e-6)
    assert not torch.equal(merged["body"]["0"]["weight"], params["body"]["0"]["weight"])
    assert torch.equal(merged["body"]["0"]["bias"], params["body"]["0"]["bias"])


def test_lora_is_its_formula():
    model = nn.lora(nn.dense(3), rank=2, alpha=6.0)
    params, buffers = model.init(random.key(0), torch.zeros(1, 4))
    down, up = torch.randn(2, 4), torch.randn(3, 2)
    x, frozen = torch.randn(5, 4), buffers["frozen"]
    y, _ = model.apply({"weight": {"lora_down": down, "lora_up": up}}, buffers, x)
    assert torch.allclose(y, x @ (frozen["weight"] + 6 / 2 * up @ down).T + frozen["bias"], atol=1e-5)
    assert params["weight"]["lora_up"].eq(0).all() and params["weight"]["lora_down"].any()


def test_freeze_and_lora_compose_and_become_a_module():
    torch.manual_seed(0)
    module = Net()
    model = nn.freeze(nn.lora(nn.from_module(module), 1, where="*.weight*", train=["head.*"]), "body.*")
    params, buffers = model.init(random.key(0), X)
    params, buffers, _ = step(model)(params, buffers, random.key(0))
    made = nn.to_module(model, params, buffers)
    assert type(made) is Net and list(made.state_dict()) == list(module.state_dict())
    assert torch.allclose(made(X), model.apply(params, buffers, X)[0], atol=1e-6)


def test_refusals(model):
    with pytest.raises(InvalidArgument, match="freeze: where matches no parameter; their paths are body"):
        nn.freeze(model, "bodies.*").init(random.key(0), X)
    with pytest.raises(InvalidArgument, match="freeze: where matches all parameters"):
        nn.freeze(model, "*").init(random.key(0), X)
    with pytest.raises(InvalidArgument, match="where must be a pattern of dotted paths"):
        nn.freeze(model, 3)
    with pytest.raises(InvalidArgument, match="lora: where matches no weight of two axes or more"):
        nn.lora(model, 2, where="*.bias").init(random.key(0), X)
    with pytest.raises(InvalidArgument, match="rank must be a whole number"):
        nn.lora(model, 0)
    with pytest.raises(InvalidArgument, match="alpha must be a positive number or None, got -1"):
        nn.lora(model, 1, alpha=-1)
    twice = nn.freeze(nn.serial(frozen=nn.batch_norm(), head=nn.dense(2), other=nn.dense(2)), "head.*")
    with pytest.raises(DuplicateName, match="a layer has the name 'frozen'"):
        twice.init(random.key(0), torch.zeros(2, 3))


def test_lora_says_that_parameters_without_gradients_are_buffers():
    module = tnn.Linear(4, 2).requires_grad_(False)
    with pytest.raises(InvalidArgument, match=r"the paths are none \(parameters with requires_grad=False are buffers"):
        nn.lora(nn.from_module(module), 1).init(random.key(0), torch.zeros(1, 4))


def test_lora_refuses_parameters_without_their_factors():
    model = nn.serial(nn.dense(3), nn.dense(2))
    adapted, x = nn.lora(model, 1), torch.zeros(1, 4)
    params, buffers = adapted.init(random.key(0), x)
    factors = params["1"]["weight"]
    wrong = {
        "got nothing": {"0": params["0"]},
        "got dict": {**params, "1": {"weight": {"lora_up": factors["lora_up"]}}},
        "got float32(2, 3)": {**params, "1": {"weight": torch.zeros(2, 3)}},
    }
    for words, held in wrong.items():
        for f in (lambda p: adapted.apply(p, buffers, x), lambda p: nn.merge(adapted, p, buffers)):
            with pytest.raises(TreeMismatch) as raised:
                f(held)
            assert "lora: params must hold 1.weight.lora_down and 1.weight.lora_up" in str(raised.value)
            assert words in str(raised.value)
    with pytest.raises(TreeMismatch, match=r"lora: params have 0\.bias, which is frozen"):
        adapted.apply({**params, "0": {**params["0"], "bias": torch.zeros(3)}}, buffers, x)
    for alpha in (float("inf"), float("nan"), True, 0):
        with pytest.raises(InvalidArgument, match="alpha must be a positive number or None"):
            nn.lora(model, 1, alpha=alpha)
