"""The lifter from the formula of one array to trees, and what a transform needs of the context."""

import attrs
import pytest
import torch

import functrain as ft
from functrain import data, losses, nn, optim, random, tree
from functrain.errors import DtypeMismatch, InvalidArgument, TreeMismatch

WIDE = {
    torch.float16: torch.float32,
    torch.bfloat16: torch.float32,
    torch.float32: torch.float32,
    torch.float64: torch.float64,
    torch.complex64: torch.float32,
    torch.complex128: torch.float64,
}


def average(now, g, p, m):
    m = torch.lerp(m, g, 1 - now.decay)
    return m, m


def averaged(formula=average, **options):
    return optim.per_leaf("averaged", formula, {"decay": 0.5}, slots=["mean"], **options)


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3), (2, 0, 3)], ids=str)
@pytest.mark.parametrize("dtype", WIDE, ids=str)
def test_a_formula_sees_wide_real_arrays_of_at_least_one_axis(dtype, shape):
    seen = []

    def formula(now, g, p, m):
        seen.append((g, p, m))
        return g, m + g

    transform = averaged(formula)
    params = {"w": torch.ones(shape, dtype=dtype)}
    gradients = {"w": torch.full(shape, 2.0, dtype=dtype)}
    updates, state = transform.update(gradients, transform.init(params), params)
    for leaf in seen[0]:
        assert leaf.dtype == WIDE[dtype]
        assert leaf.shape == (*shape, 2) if dtype.is_complex else leaf.shape == (shape or (1,))
    assert tree.equal(updates, gradients)
    assert state["mean"]["w"].dtype == torch.promote_types(dtype, torch.float32)
    assert tree.equal(state["mean"], tree.map(lambda g: g.to(state["mean"]["w"].dtype), gradients))


def test_a_first_value_is_made_of_the_parameter():
    transform = optim.per_leaf(
        "rows", lambda now, g, p, r, c: (g, r, c), slots={"row": lambda p: p.sum(-1), "copy": lambda p: p * 1}
    )
    params = {"w": torch.ones(2, 3, dtype=torch.bfloat16), "s": torch.tensor(2.0), "z": torch.tensor([1 + 2j])}
    state = transform.init(params)
    rows = {"w": torch.full((2,), 3.0), "s": torch.tensor(2.0), "z": torch.tensor([3.0])}
    assert tree.equal(state["row"], rows)
    assert tree.equal(state["copy"], {**params, "w": params["w"].float()})
    _, after = transform.update(params, state, params)
    assert tree.map(tree.describe, after) == tree.map(tree.describe, state)


def test_it_counts_updates_and_computes_once_what_leaves_share():
    calls = []

    def once(now):
        calls.append(float(now.t))
        return {"factor": now.t * now.decay}

    transform = averaged(lambda now, g, p, m: (g * now.factor, m), counts=True, once=once)
    params = {"a": torch.ones(2), "b": torch.ones(())}
    state = transform.init(params)
    for step in (1, 2):
        updates, state = transform.update(params, state, params)
        assert tree.equal(updates, tree.map(lambda p, t=step: p * t * 0.5, params))
    assert calls == [1.0, 2.0] and int(state["count"]) == 2


def test_nothing_to_keep_is_an_empty_state():
    transform = optim.per_leaf("half", lambda now, g, p: g / 2)
    assert transform.init({"w": torch.ones(1)}) == ()
    assert transform.update({"w": torch.ones(1)}, (), {"w": torch.ones(1)}) == ({"w": torch.tensor([0.5])}, ())
    assert repr(transform) == "half()"


@pytest.mark.parametrize("slots", [["mean"], []])
def test_an_empty_tree_has_empty_updates(slots):
    transform = optim.per_leaf("t", lambda now, g, p, *m: (g, *m), slots=slots)
    assert transform.update({}, transform.init({}), {})[0] == {}


def test_lion_is_its_formula_over_twenty_updates():
    generator = torch.Generator().manual_seed(0)
    p = torch.randn(5, generator=generator, dtype=torch.float64)
    params, m = {"w": p}, torch.zeros(5, dtype=torch.float64)
    transform = optim.lion(0.01, 0.9, 0.99, weight_decay=0.1)
    state = transform.init(params)
    for _ in range(20):
        g = torch.randn(5, generator=generator, dtype=torch.float64)
        params, state = optim.step(transform, {"w": g}, state, params)
        p = p - 0.01 * (torch.sign(0.9 * m + 0.1 * g) + 0.1 * p)
        m = 0.99 * m + 0.01 * g
    torch.testing.assert_close(params["w"], p, rtol=1e-12, atol=1e-12)


# --- refused ---


@pytest.mark.parametrize("leaf", [torch.tensor(3), torch.tensor([True]), 1.0, None])
@pytest.mark.parametrize("make", [averaged, lambda: optim.sgd(0.1), optim.adamw])
def test_a_parameter_that_cannot_be_trained_is_named(make, leaf):
    with pytest.raises(DtypeMismatch, match=r"parameters must be floating-point or complex tensors, but a\.steps is"):
        make().init({"a": {"weight": torch.ones(1), "steps": leaf}})


def test_a_formula_that_returns_the_wrong_number_of_slots_is_refused():
    transform, params = averaged(lambda now, g, p, m: g), {"w": torch.ones(1)}
    with pytest.raises(InvalidArgument, match="return the update and 1 slots, a tuple of 2 tensors; it returned 1"):
        transform.update(params, transform.init(params), params)


def test_a_formula_that_changes_shapes_is_refused():
    transform, params = averaged(lambda now, g, p, m: (g.sum(), m)), {"w": torch.ones(2)}
    with pytest.raises(TreeMismatch, match=r"the formula must keep shapes, and made float32\(\) of float32\(2,\)"):
        transform.update(params, transform.init(params), params)


def test_an_error_of_the_formula_itself_is_passed_on():
    transform, params = averaged(lambda now, g, p, m: (g @ m, m)), {"w": torch.ones(2, 3)}
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        transform.update(params, transform.init(params), params)


def test_no_slot_is_called_count():
    with pytest.raises(InvalidArgument, match='a slot must not be called "count"'):
        optim.per_leaf("t", average, slots=["count"])


@pytest.mark.parametrize("shape", [(2,), (1, 3), (3,), (2, 3, 1)], ids=str)
def test_parameters_of_other_shapes_than_at_init_are_named(shape):
    transform = averaged()
    state, params = transform.init({"w": torch.ones(2, 3)}), {"w": torch.ones(shape)}
    with pytest.raises(TreeMismatch, match=r"the optimizer state must have .*\n  w: expected"):
        transform.update(params, state, params)
    with pytest.raises(TreeMismatch, match=r"the gradients must have .*\n  w: expected"):
        transform.update(params, state, {"w": torch.ones(2, 3)})


# --- what a transform needs of the context ---


def needing(*needs):
    seen = []

    def f(updates, params, context):
        seen.append({name: getattr(context, name) for name in ("evaluate", "key", "loss")})
        return updates

    return optim.stateless(f, needs=needs, label="needy"), seen


@pytest.mark.parametrize(
    "wrap",
    [
        lambda t: t,
        lambda t: optim.chain(optim.identity, t),
        lambda t: optim.partition({"all": t}, {"all": "*"}),
        lambda t: optim.freeze(lambda path, leaf: False, t),
        lambda t: optim.skip_nonfinite(t),
        lambda t: optim.named("n", t),
    ],
)
@pytest.mark.parametrize("need", ["evaluate", "key", "loss"])
def test_what_is_needed_must_be_there(need, wrap):
    transform, params = wrap(needing(need)[0]), {"w": torch.ones(1)}
    message = rf"this transform needs .*, and the context has none; pass optim\.Context\({need}=\.\.\.\)"
    for run in (transform.update, lambda *a: optim.step(transform, *a)):
        with pytest.raises(InvalidArgument, match=message):
            run(params, transform.init(params), params)


def test_a_need_that_nothing_supplies_is_refused():
    with pytest.raises(
        InvalidArgument, match="needs must be of 'evaluate', 'examples', 'key', 'loss', 'loss_scale', got 'hessian'"
    ):
        optim.stateless(lambda u, p, c: u, needs=("hessian",))


def learner_of(optimizer):
    model = nn.serial(nn.dense(4), nn.dropout(0.5), nn.dense(1))
    learner = ft.Learner(model, losses.mse, optimizer)
    batch = (torch.linspace(-1, 1, 12).reshape(6, 2), torch.linspace(0, 1, 6)[:, None])
    return learner, ft.init(learner, random.key(0), batch), batch


@pytest.mark.parametrize("needs", [(), ("loss",), ("key", "evaluate")])
def test_a_training_step_supplies_what_is_needed_and_nothing_else(needs):
    piece, seen = needing(*needs)
    learner, state, batch = learner_of(optim.chain(piece, optim.sgd(0.1)))
    ft.train_step(learner)(state, batch)
    assert [name for name, value in seen[0].items() if value is not None] == sorted(needs)
    if "key" in needs:
        assert torch.equal(seen[0]["key"], random.fold_in(state.key, state.step))


@pytest.mark.parametrize("weight", [None, torch.tensor([1.0, 2.0, 0.0, 1.0, 0.0, 3.0])])
@pytest.mark.parametrize("handled", [False, True])
@pytest.mark.parametrize("jit", [False, True])
def test_evaluate_is_the_loss_and_the_gradients_of_this_batch_with_the_same_draws(jit, handled, weight):
    def difference(updates, params, context):
        loss, grads = context.evaluate(params)
        further, _ = context.evaluate(tree.map(lambda p: p + 1, params))
        wrong = (further == loss) + (loss - context.loss).abs()
        return tree.map(lambda a, b: a - b + wrong, grads, updates)

    learner, state, batch = learner_of(optim.stateless(difference, needs=("evaluate", "loss")))
    callbacks = ()
    if handled:
        double = ft.Callback("double", {"after_loss": lambda step: attrs.evolve(step, loss=step.loss * 2)})
        halve = ft.Callback(
            "halve", {"after_grads": lambda step: attrs.evolve(step, grads=tree.map(lambda g: g / 2, step.grads))}
        )
        callbacks = (double, halve)
    rows = data.Batch(*batch, weight)
    train = ft.fit(learner, state, train=[rows, rows], epochs=1, jit="aten" if jit else False, callbacks=callbacks)
    assert not tree.differences(train.state.params, state.params, atol=1e-6)


@pytest.mark.parametrize("jit", [False, True])
def test_sums_are_over_all_leaves_with_the_slots_before(jit):
    def size(now, g, p, seen):
        return (now.lr * g * p + seen).sum()

    piece = optim.per_leaf(
        "shared",
        lambda now, g, p, seen: (g * now.part, seen + 1),
        {"lr": 0.5},
        ["seen"],
        sums={"size": size},
        once=lambda now: {"part": now.size / 2},
    )
    values = {
        "a": torch.tensor([1.0, 2.0]),
        "b": torch.tensor(3.0),
        "c": torch.tensor(1 + 2j),
        "h": torch.ones(2).half(),
    }
    update = ft.jit(piece.update) if jit else piece.update
    first, state = update(values, piece.init(values), values)
    second, _ = update(values, state, values)
    total = 0.5 * (1 + 4 + 9 + 1 + 4 + 2)
    assert not tree.differences(first, tree.map(lambda v: v * (total / 2), values), rtol=1e-3)
    assert not tree.differences(second, tree.map(lambda v: v * ((total + 7) / 2), values), rtol=1e-3)
    with pytest.raises(ft.errors.TreeMismatch, match="the gradients must have the structure of the parameters"):
        piece.update({**values, "a": torch.ones(1)}, piece.init(values), values)
