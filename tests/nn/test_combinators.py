"""Models and combinators: laws, names, keys, modes and errors."""

import pytest
import torch

from functrain import nn, random, schedule, tree
from functrain.engine import value_and_grad, vmap
from functrain.errors import (
    DuplicateName,
    InvalidArgument,
    InvalidKey,
    NotATensor,
    ShapeMismatch,
    TreeMismatch,
)

KEY = random.key(7)
X = torch.linspace(-1, 1, 12).reshape(4, 3)


def double(x):
    return 2 * x


def net():
    """A net with parameters, buffers, randomness and layers without either."""
    return nn.serial(nn.dense(5), nn.batch_norm(), nn.relu, nn.dropout(0.5), nn.dense(2))


# Laws.


@pytest.mark.parametrize("combined", [nn.serial, lambda layer: nn.serial(nn.serial(), layer, nn.serial())])
def test_serial_of_one_layer_is_the_layer(combined):
    layer, params = nn.dense(2), {"weight": torch.ones(2, 3), "bias": torch.arange(2.0)}
    name = "0" if combined is nn.serial else "1"
    y, buffers = combined(layer).apply({name: params}, {}, X)
    assert tree.equal(y, layer.apply(params, {}, X)[0])
    assert buffers == {}


def test_serial_without_layers_is_the_identity():
    model = nn.serial()
    assert model.init(KEY, X) == ({}, {})
    y, buffers = model.apply({}, {}, X, nn.training(KEY))
    assert y is X
    assert buffers == {}


def test_serial_is_associative():
    a, b, c = nn.dense(5), nn.serial(nn.batch_norm(), nn.tanh), nn.dense(2)
    flat, left, right = nn.serial(a, b, c), nn.serial(nn.serial(a, b), c), nn.serial(a, nn.serial(b, c))
    params, buffers = flat.init(KEY, X)
    # The same values under the names of each.
    in_left = {"0": {"0": params["0"], "1": params["1"]}, "1": params["2"]}, {"0": {"1": buffers["1"]}}
    in_right = {"0": params["0"], "1": {"0": params["1"], "1": params["2"]}}, {"1": {"0": buffers["1"]}}
    y, after = flat.apply(params, buffers, X, nn.training(KEY))
    y_left, after_left = left.apply(*in_left, X, nn.training(KEY))
    y_right, after_right = right.apply(*in_right, X, nn.training(KEY))
    assert tree.equal(y, y_left)
    assert tree.equal(y, y_right)
    assert tree.equal(after["1"], after_left["0"]["1"])
    assert tree.equal(after["1"], after_right["1"]["0"])


def test_a_net_vmapped_over_keys_is_an_ensemble():
    model, keys, x = net(), random.split(KEY, 3), X.double()
    params, buffers = vmap(lambda key: model.init(key, x))(keys)

    def loss(params, buffers, key):
        y, after = model.apply(params, buffers, x, nn.training(key))
        return (y**2).sum(), after

    step = value_and_grad(loss, has_aux=True)
    found = vmap(step)(params, buffers, keys)
    singles = [model.init(key, x) for key in keys]
    assert tree.differences((params, buffers), tree.stack(singles), rtol=1e-6, atol=1e-6) == []
    wanted = tree.stack([step(p, b, key) for (p, b), key in zip(singles, keys, strict=True)])
    torch.testing.assert_close(found, wanted)


# Names and keys.


def test_children_are_named_as_in_torch_sequential():
    model = nn.serial(nn.flatten, nn.dense(4), nn.relu, nn.named("mid", nn.dense(3)), nn.dense(3), head=nn.dense(2))
    params, buffers = model.init(KEY, X)
    assert list(params) == ["1", "mid", "4", "head"]
    assert buffers == {}
    assert [tuple(p["weight"].shape) for p in params.values()] == [(4, 3), (3, 4), (3, 3), (2, 3)]


def test_a_child_without_parameters_or_buffers_has_no_entry():
    params, buffers = nn.serial(nn.serial(nn.relu), nn.batch_norm(affine=False), nn.dense(1)).init(KEY, X)
    assert list(params) == ["2"]
    assert list(buffers) == ["1"]


def test_named_has_no_effect_on_a_model_of_its_own():
    assert nn.named("a", double).name == "a"
    assert tree.equal(nn.named("a", double).apply({}, {}, X)[0], 2 * X)


def test_a_keyword_goes_before_the_name_of_a_layer():
    params, _ = nn.serial(outer=nn.named("inner", nn.dense(1))).init(KEY, X)
    assert list(params) == ["outer"]


def test_the_initial_values_come_from_the_path_alone():
    first, _ = nn.serial(stem=nn.dense(4), head=nn.dense(2)).init(KEY, X)
    second, _ = nn.serial(stem=nn.dense(4), between=nn.dense(4), head=nn.dense(2), after=nn.dense(9)).init(KEY, X)
    assert tree.equal(first, {name: second[name] for name in first})
    by_hand, _ = nn.dense(4).init(random.fold_in(KEY, "stem"), X)
    assert tree.equal(first["stem"], by_hand)
    assert not torch.equal(second["between"]["weight"][:2], second["head"]["weight"])


def test_weight_and_bias_have_keys_of_their_own():
    from functrain import initializers

    layer = nn.dense(3, bias=initializers.normal(), weight=initializers.normal())
    params, _ = layer.init(KEY, X[:, :1])
    assert not torch.equal(params["weight"].flatten(), params["bias"])


def test_the_draws_of_dropout_come_from_the_path_alone():
    alone = nn.serial(drop=nn.dropout(0.5))
    among = nn.serial(nn.dropout(0.1), double, drop=nn.dropout(0.5))
    only = nn.serial(double, nn.serial(nn.identity), drop=nn.dropout(0.5))
    x, mode = torch.ones(8, 16), nn.training(KEY)
    y = alone.apply({}, {}, x, mode)[0]
    assert tree.equal(2 * y, only.apply({}, {}, x, mode)[0])
    noisy = among.apply({}, {}, x, mode)[0]
    assert not torch.equal(noisy == 0, y == 0)
    assert bool((noisy[y == 0] == 0).all())


def test_layers_of_another_path_draw_otherwise():
    model = nn.parallel(nn.dropout(0.5), nn.dropout(0.5), nn.serial(nn.dropout(0.5)), combine="tuple")
    a, b, c = model.apply({}, {}, torch.ones(8, 16), nn.training(KEY))[0]
    assert not torch.equal(a, b)
    assert not torch.equal(a, c)


def test_the_key_of_a_layer_is_the_key_folded_with_its_path():
    mode = nn.enter(nn.enter(nn.training(KEY), "a"), "b")
    assert mode.path == ("a", "b")
    assert tree.equal(nn.layer_key(mode), random.fold_in(KEY, "a", "b"))


def test_the_mode_passes_down_unchanged_but_for_its_path():
    seen = []

    def apply(params, buffers, x, mode):
        seen.append(mode)
        return x, buffers

    spy = nn.Model(lambda key, x: ({}, {}), apply, label="spy")
    weight = torch.ones(4)
    mode = nn.training(KEY, 0.25, weight)
    nn.serial(nn.residual(nn.parallel(spy, combine="sum"))).apply({}, {}, X, mode)
    (found,) = seen
    assert found.path == ("0", "layer", "0")
    assert (found.train, found.key, found.progress, found.weight) == (True, KEY, mode.progress, weight)


def test_training_takes_a_position_or_a_progress():
    progress = schedule.Progress(0.5, 10, 2.0)
    assert nn.training(KEY, progress).progress is progress
    assert nn.training(KEY, 0.5).progress == schedule.Progress(position=0.5)
    assert nn.evaluation() == nn.Mode()


# Buffers.


def test_buffers_keep_their_structure_and_siblings():
    model = nn.serial(nn.batch_norm(), nn.dense(2), nn.serial(nn.relu, nn.batch_norm()))
    params, buffers = model.init(KEY, X)
    _, after = model.apply(params, buffers, X, nn.training(KEY))
    assert tree.structure(after) == tree.structure(buffers)
    assert int(after["0"]["num_batches_tracked"]) == int(after["2"]["1"]["num_batches_tracked"]) == 1


def test_a_layer_that_returns_new_empty_buffers_adds_no_entry():
    careless = nn.Model(lambda key, x: ({}, {}), lambda params, buffers, x, mode=None: (x, {}))
    assert nn.serial(careless, nn.parallel(careless)).apply({}, {}, X)[1] == {}


def test_branches_return_the_buffers_of_each():
    model = nn.parallel(nn.batch_norm(), nn.residual(nn.batch_norm(), nn.batch_norm()))
    params, buffers = model.init(KEY, X)
    _, after = model.apply(params, buffers, X, nn.training(KEY))
    assert [int(n) for n in tree.filter(after, "*tracked").values()] == [1, 1, 1]
    assert sorted(params["1"]) == ["layer", "shortcut"]


# The other combinators.


def test_residual_adds_the_shortcut():
    block = nn.residual(nn.dense(3))
    params, _ = block.init(KEY, X)
    wanted = X + nn.dense(3).apply(params["layer"], {}, X)[0]
    torch.testing.assert_close(block.apply(params, {}, X)[0], wanted)
    wide = nn.residual(nn.dense(5), nn.named("project", nn.dense(5, bias=False)))
    params, _ = wide.init(KEY, X)
    assert sorted(params) == ["layer", "project"]
    wanted = X @ params["project"]["weight"].T + X @ params["layer"]["weight"].T + params["layer"]["bias"]
    torch.testing.assert_close(wide.apply(params, {}, X)[0], wanted)


@pytest.mark.parametrize(
    ("combine", "wanted"),
    [
        ("sum", 3 * X),
        ("concat", torch.cat([X, 2 * X], 1)),
        ("tuple", (X, 2 * X)),
        (lambda outputs: outputs[0] * outputs[1], 2 * X * X),
        (sum, 3 * X),
    ],
)
def test_parallel_combines(combine, wanted):
    torch.testing.assert_close(nn.parallel(nn.identity, double, combine=combine).apply({}, {}, X), (wanted, {}))


def test_repeat_is_a_serial_with_parameters_for_each():
    layer = nn.named("block", nn.dense(3))
    params, _ = nn.repeat(2, layer).init(KEY, X)
    assert list(params) == ["0", "1"]
    assert not torch.equal(params["0"]["weight"], params["1"]["weight"])
    assert nn.repeat(0, layer).apply({}, {}, X)[0] is X


def test_a_tree_can_go_through_a_model():
    def swap(pair):
        return pair[1], pair[0]

    x = (X, 2 * X)
    assert tree.equal(nn.serial(swap, swap).apply({}, {}, x)[0], x)


def test_hypers_are_named_by_path():
    rise = schedule.linear(0, 0.5)
    model = nn.serial(nn.dropout(0.1), nn.residual(nn.serial(drop=nn.dropout(rise))), nn.parallel(nn.dropout(0.2)))
    assert model.hypers == {"0.rate": 0.1, "1.layer.drop.rate": rise, "2.0.rate": 0.2}


def test_zero_weight_rows_leave_no_trace():
    model = net()
    params, buffers = model.init(KEY, X)
    padded = torch.cat([X, torch.full((3, 3), 1e3)])
    weight = torch.tensor([1.0] * 4 + [0.0] * 3)
    y, after = model.apply(params, buffers, X, nn.training(KEY, weight=torch.ones(4)))
    y_padded, after_padded = model.apply(params, buffers, padded, nn.training(KEY, weight=weight))
    torch.testing.assert_close(y_padded[:4], y)
    torch.testing.assert_close(after_padded, after)


# Errors of construction.


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.serial(nn.relu, nn.dense), r"layer 1 is the function dense, which makes a layer; call it: dense"),
        (lambda: nn.serial(head=3), r"layer head must be a Model or a function of a tensor, got 3"),
        (lambda: nn.named("a", torch.nn.ReLU), r"layer a is the class ReLU; a layer is a Model or a function"),
        (lambda: nn.residual(torch.nn.ReLU()), r"layer layer is a torch.nn.Module, ReLU\(\).*take nn.from_module"),
        (lambda: nn.residual(nn.relu, None), r"layer shortcut must be a Model or a function of a tensor, got None"),
        (lambda: nn.repeat(2, 3), r"layer must be a Model or a function of a tensor, got 3"),
        (lambda: nn.repeat(-1, nn.relu), r"count must be a whole number of at least 0, got -1"),
        (lambda: nn.parallel(), r"at least one layer"),
        (lambda: nn.parallel(nn.relu, combine="mean"), r"combine must be 'sum', 'concat', 'tuple'.*got 'mean'"),
        (lambda: nn.composite("mine", None), r"forward must be a function of \(children, x\), got None"),
        (lambda: nn.named("", nn.relu), r"name must be a string, not empty and without a dot, got ''"),
        (lambda: nn.named("a.b", nn.relu), r"without a dot, got 'a.b'"),
        (lambda: nn.named(1, nn.relu), r"name must be a string.*got 1"),
        (lambda: nn.serial(**{"a.b": nn.relu}), r"without a dot, got 'a.b'"),
    ],
)
def test_what_is_no_model_or_no_name_is_an_error(make, message):
    with pytest.raises(InvalidArgument, match=message):
        make()


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.serial(nn.named("a", nn.relu), nn.named("a", nn.relu)),
        lambda: nn.serial(nn.relu, **{"0": nn.relu}),
        lambda: nn.parallel(nn.named("1", nn.relu), nn.relu),
        lambda: nn.residual(nn.named("shortcut", nn.relu)),
    ],
)
def test_duplicate_names_are_an_error(make):
    with pytest.raises(DuplicateName, match=r"two layers have the name '(a|0|1|shortcut)'"):
        make()


# Errors of use.

DEEP = nn.serial(nn.identity, encoder=nn.residual(nn.serial(nn.dense(3), nn.dense(3))))


def test_an_input_that_does_not_fit_names_the_layer_at_init():
    wrong = nn.serial(nn.identity, encoder=nn.residual(nn.serial(nn.dense(3), nn.conv(3, 2))))
    with pytest.raises(ShapeMismatch, match=r"^in layer encoder\.layer\.1: conv\(3, kernel 2 x 2\): the input must"):
        wrong.init(KEY, X)


@pytest.mark.parametrize("transform", [lambda f: f, lambda f: vmap(f, (None, None, 0))], ids=["plain", "vmap"])
def test_an_input_that_does_not_fit_names_the_layer_at_apply(transform):
    params, buffers = DEEP.init(KEY, X)
    with pytest.raises(
        ShapeMismatch, match=r"^in layer encoder\.layer\.0: dense\(3\): the input must be \(\.\.\., 3\)"
    ):
        transform(lambda p, b, x: DEEP.apply(p, b, x)[0])(params, buffers, torch.ones(2, 4, 5))


def test_a_foreign_error_gets_the_layer_as_a_note():
    model = nn.serial(nn.relu, deep=nn.serial(lambda x: x.reshape(5)))
    for use in (lambda: model.init(KEY, X), lambda: model.apply({}, {}, X)):
        with pytest.raises(RuntimeError, match="shape") as caught:
            use()
        assert caught.value.__notes__ == ["in layer deep.0"]


def test_parameters_of_another_model_are_an_error():
    params, buffers = DEEP.init(KEY, X)
    message = r"in layer encoder\.layer\.1: dense\(3\): params must hold weight and bias, got nothing"
    cut = {"encoder": {"layer": {"0": params["encoder"]["layer"]["0"]}}}
    with pytest.raises(TreeMismatch, match=message):
        DEEP.apply(cut, buffers, X)
    with pytest.raises(TreeMismatch, match=r"params must be a dict, got tuple"):
        DEEP.apply((params, buffers), buffers, X)
    with pytest.raises(TreeMismatch, match=r"buffers must be a dict, got NoneType"):
        DEEP.apply(params, None, X)
    with pytest.raises(TreeMismatch, match=r"in layer 0: dense\(3\): params must be a dict, got Tensor"):
        nn.serial(nn.dense(3)).apply({"0": X}, {}, X)


@pytest.mark.parametrize("model", [nn.residual(nn.dense(1)), nn.parallel(nn.identity, nn.dense(1), combine="sum")])
def test_branches_of_different_shapes_are_an_error_not_broadcast(model):
    with pytest.raises(ShapeMismatch, match=r"must have one shape, got \(4, [13]\) and \(4, [13]\)"):
        model.init(KEY, X)


def test_branches_that_cannot_be_joined_are_an_error():
    def halve(x):
        return x[:2]

    with pytest.raises(ShapeMismatch, match=r"concat: .* one shape but for axis 1, got \(4, 3\) and \(2, 3\)"):
        nn.parallel(nn.identity, halve, combine="concat").apply({}, {}, X)
    with pytest.raises(NotATensor, match=r"sum: each layer must return a tensor, got tuple"):
        nn.residual(lambda x: (x, x), lambda x: (x, x)).apply({}, {}, X)


def test_a_key_that_is_none_is_an_error():
    with pytest.raises(InvalidKey):
        nn.training(0)
    with pytest.raises(InvalidKey):
        net().init(0, X)
    with pytest.raises(InvalidKey, match=r"nn.training\(key\)"):
        nn.layer_key(nn.evaluation())
