"""Parameter groups, and freezing."""

import pytest
import torch

import functrain as ft
from functrain import data, losses, nn, optim, random, schedule, tree
from functrain.errors import InvalidArgument, TreeMismatch

NAN = float("nan")


def params():
    return {"weight": torch.ones(2, 3, dtype=torch.float64), "bias": torch.zeros(2, dtype=torch.float64)}


def tree_of(*paths):
    return {path: torch.ones(2) for path in paths}


def is_vector(path, leaf):
    return leaf.dim() < 2


def two(first, second, **where):
    return optim.partition(dict(zip(where, (first, second), strict=True)), where)


def test_each_group_has_its_own_transform_and_schedule():
    transform = two(optim.sgd(schedule.linear(1.0, 2.0)), optim.sgd(5.0, momentum=0.5), small=is_vector, big="*weight")
    values = params()
    updates, state = transform.update(values, transform.init(values), values, optim.Context(position=0.5))
    assert tree.equal(updates, {"weight": -5.0 * values["weight"], "bias": -1.5 * values["bias"]})
    assert list(state) == ["small", "big"]
    assert optim.hyperparameters(transform, optim.Context(position=0.5)) == {
        "small.lr": 1.5,
        "big.momentum": 0.5,
        "big.lr": 5.0,
    }


def test_one_group_of_everything_is_the_transform_itself():
    inner, values = optim.sgd(0.1, momentum=0.9, weight_decay=0.1), params()
    one = optim.partition({"all": inner}, {"all": "*"})
    states = inner.init(values), one.init(values)
    for batch in range(3):
        gradients = tree.map(lambda p, factor=batch + 1.0: (p + 0.5) * factor, values)
        expected, first = inner.update(gradients, states[0], values)
        got, second = one.update(gradients, states[1], values)
        assert tree.equal(got, expected)
        states = first, second


def test_the_order_of_the_gradients_keys_is_free():
    transform, values = two(optim.sgd(1.0), optim.sgd(2.0), a="weight", b="bias"), params()
    gradients = tree.map(torch.ones_like, values)
    turned = dict(reversed(list(gradients.items())))
    expected, _ = transform.update(gradients, transform.init(values), values)
    assert tree.equal(transform.update(turned, transform.init(values), values)[0], expected)
    after = optim.step(transform, turned, transform.init(values), values)[0]
    assert tree.equal(after, optim.apply_updates(values, expected))


def test_groups_inside_a_chain_and_around_accumulation():
    inner = two(optim.accumulate(2)(optim.sgd(1.0)), optim.sgd(1.0), weight="weight", bias=...)
    transform, values = optim.chain(optim.clip_by_global_norm(1e9), inner), params()
    state, ones = transform.init(values), tree.map(torch.ones_like, values)
    first, state = transform.update(ones, state, values)
    second, state = transform.update(ones, state, values)
    assert first["weight"].abs().sum() == 0 and second["weight"].abs().sum() > 0
    assert tree.equal(first["bias"], second["bias"])


def test_a_group_of_several_patterns_and_an_empty_rest():
    transform = two(optim.sgd(1.0), optim.adamw(), some=["*weight", "*bias"], rest=...)
    values = tree_of("0.weight", "0.bias")
    updates, _ = transform.update(values, transform.init(values), values)
    assert tree.equal(updates, tree.map(torch.neg, values))


def test_a_predicate_may_claim_nothing_and_an_empty_tree_has_nothing_to_claim():
    transform = two(optim.sgd(1.0), optim.sgd(2.0), matrices=lambda path, leaf: leaf.dim() > 1, others="*")
    values = tree_of("a")
    assert tree.equal(transform.update(values, transform.init(values), values)[0], {"a": torch.full((2,), -2.0)})
    assert transform.update({}, transform.init({}), {})[0] == {}


def test_a_predicate_sees_the_leaf_of_each_shape_anew():
    transform = two(optim.sgd(1.0), optim.sgd(2.0), vectors=is_vector, others=...)
    for shape, factor in (((2,), -1.0), ((2, 2), -2.0), ((2,), -1.0)):
        values = {"a": torch.ones(shape)}
        assert tree.equal(transform.update(values, transform.init(values), values)[0], {"a": torch.full(shape, factor)})


def test_a_leaf_claimed_by_none_or_several_is_named():
    transform = two(optim.sgd(1.0), optim.sgd(1.0), weights="*weight", zeroth="0*")
    message = (
        r"each parameter needs exactly one group, but:\n"
        r"  0\.weight: claimed by 'weights' and 'zeroth'\n"
        r"  1\.bias: claimed by no group$"
    )
    with pytest.raises(InvalidArgument, match=message):
        transform.init(tree_of("0.weight", "0.bias", "1.weight", "1.bias"))


def test_at_most_ten_lines_are_shown():
    transform = optim.partition({"x": optim.sgd(1.0)}, {"x": lambda path, leaf: False})
    with pytest.raises(InvalidArgument, match="and 6 more") as raised:
        transform.init(tree_of(*(str(index) for index in range(15))))
    assert len(str(raised.value).splitlines()) == 11


def test_a_pattern_that_matches_nothing_is_named():
    transform = two(optim.sgd(1.0), optim.sgd(1.0), head=["*.weight", "haed.*"], rest=...)
    message = r"the pattern 'haed\.\*' of group 'head' matches no parameter; there are 0\.weight, 0\.bias"
    with pytest.raises(InvalidArgument, match=message):
        transform.init(tree_of("0.weight", "0.bias"))
    with pytest.raises(InvalidArgument, match=r"the pattern 'x' of group 'frozen' .* and 5 more"):
        optim.freeze("x", optim.sgd(1.0)).init(tree_of(*(str(index) for index in range(15))))


@pytest.mark.parametrize(
    "where, message",
    [
        ({"a": "*"}, r"partition needs .*, but 'b' has no claim"),
        ({"a": "*", "b": "*", "c": "*"}, r"partition needs .*, but 'c' has no transform"),
        ({"c": "*"}, r"partition needs .*, but 'a', 'b' have no claim; 'c' has no transform"),
        ({"a": ..., "b": ...}, r"only one group can claim the rest \(\.\.\.\), but 'a' and 'b' do"),
        ({"a": 3, "b": ...}, r"group 'a' must claim a pattern of dotted paths, .*; got 3"),
        ({"a": [], "b": ...}, r"group 'a' must claim .*; got \[\]"),
    ],
)
def test_claims_that_make_no_sense_are_refused(where, message):
    with pytest.raises(InvalidArgument, match=message):
        optim.partition({"a": optim.sgd(1.0), "b": optim.sgd(1.0)}, where)


def test_a_group_that_is_no_transform_is_refused():
    with pytest.raises(InvalidArgument, match=r"group 'all' of partition must be a Transform, got 0.1"):
        optim.partition({"all": 0.1}, {"all": "*"})


def test_a_mismatch_of_gradients_is_named_by_groups_too():
    transform, values = optim.partition({"all": optim.sgd(1.0)}, {"all": "*"}), params()
    with pytest.raises(TreeMismatch, match=r"the gradients must have.*\n  bias: expected float64\(2,\), got nothing"):
        transform.update({"weight": values["weight"]}, transform.init(values), values)


def test_a_partition_reads_well():
    transform = two(optim.sgd(1.0), optim.sgd(2.0), a="weight", b=...)
    assert repr(transform) == "partition(a=sgd(lr=1.0), b=sgd(lr=2.0))"
    assert repr(optim.freeze("*.bias", optim.sgd(1.0))) == "freeze('*.bias', sgd(lr=1.0))"
    assert repr(optim.freeze(is_vector, optim.sgd(1.0))) == "freeze(is_vector, sgd(lr=1.0))"


# --- freeze ---


@pytest.mark.parametrize("jit", [False, True])
def test_no_nan_passes_a_frozen_leaf(jit):
    optimizer = optim.freeze("0.*", optim.chain(optim.clip_by_global_norm(1.0), optim.adamw(0.1, weight_decay=0.5)))
    values, bad = tree_of("0.weight", "1.weight"), {"0.weight": torch.full((2,), NAN), "1.weight": torch.ones(2)}
    alone = optim.chain(optim.clip_by_global_norm(1.0), optim.adamw(0.1, weight_decay=0.5))
    step = ft.jit(lambda *a: optim.step(optimizer, *a)) if jit else (lambda *a: optim.step(optimizer, *a))
    after, _ = step(bad, optimizer.init(values), values)
    rest = {"1.weight": values["1.weight"]}
    expected, _ = optim.step(alone, {"1.weight": torch.ones(2)}, alone.init(rest), rest)
    assert torch.equal(after["0.weight"], values["0.weight"])
    torch.testing.assert_close(after["1.weight"], expected["1.weight"])


def test_no_state_is_kept_for_what_is_frozen():
    values = {"big": torch.ones(1000), "small": torch.ones(3)}
    state = optim.freeze("big", optim.adam()).init(values)
    assert sum(leaf.numel() for leaf in tree.leaves(state)) == 2 * 3 + 1


def test_freeze_keeps_the_names_of_the_hyperparameters_and_what_is_needed():
    inner = optim.chain(optim.stateless(lambda u, p, c: u, needs=("key",)), optim.sgd(0.1))
    assert optim.hyperparameters(optim.freeze("a", inner)) == {"lr": 0.1}
    assert optim.freeze("a", inner).needs == ("key",)


@pytest.mark.parametrize("jit", [False, "aten"])
def test_a_fit_leaves_the_frozen_layer_bitwise(jit):
    rows = data.ArrayDataset((torch.linspace(-1, 1, 12)[:, None], torch.linspace(-1, 1, 12)[:, None]))
    model = nn.serial(nn.dense(4), nn.relu, nn.dense(1))
    learner = ft.Learner(model, losses.mse, optim.freeze("0.*")(optim.adam(0.1)))
    state = ft.init(learner, random.key(0), rows[:1])
    result = ft.fit(learner, state, train=data.loader(rows, data.sequential(4)), epochs=1, jit=jit).state
    assert tree.equal(result.params["0"], state.params["0"])
    assert not tree.equal(result.params["2"], state.params["2"])


def test_freeze_needs_a_transform_and_to_know_what():
    with pytest.raises(InvalidArgument, match=r"transform must be a Transform, got 0\.1"):
        optim.freeze("a", 0.1)
    with pytest.raises(InvalidArgument, match=r"freeze must claim a pattern .*; got 3"):
        optim.freeze(3, optim.sgd(0.1))


@pytest.mark.parametrize("every", [1, 3])
def test_a_group_that_looks_at_the_curvature_sees_the_others_as_they_are(every):
    # In a trace the estimate stands in a branch of `cond`, which closes over the parameters of the other group.
    def loss(params):
        return (params["a"] * params["b"] * 2).sin().sum()

    def step(params, state):
        value, grads = evaluate(params)
        context = optim.Context(loss=value, key=ft.random.key(0), evaluate=evaluate)
        return optim.step(groups, grads, state, params, context)

    evaluate = ft.value_and_grad(loss)
    for other in (optim.sgd(0.1), optim.freeze("b", optim.identity)):
        groups = optim.partition({"x": optim.sophia(0.01, every=every), "y": other}, {"x": "a", "y": "b"})
        plain = compiled = {"a": torch.ones(2), "b": torch.full((2,), 0.5)}
        first, second = groups.init(plain), groups.init(plain)
        for _ in range(4):
            plain, first = step(plain, first)
            compiled, second = ft.jit(step)(compiled, second)
        assert not tree.differences((compiled, second), (plain, first), rtol=1e-5, atol=1e-6)
