"""Gradients of single examples in a fit: against a loop over the rows, and what is refused."""

import pytest
import torch

import functrain as ft
from functrain import data, losses, nn, optim, tree
from functrain.errors import InvalidArgument, ShapeMismatch
from functrain.train import train_stages
from functrain.train.stepping.step import begin

X = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(12) % 3
WEIGHTS = torch.tensor([1.0, 0.5, 2.0, 0.0] * 3)
MODEL = nn.serial(nn.dense(5), nn.tanh, nn.dense(3))


def learner_of(optimizer, model=MODEL, loss=losses.cross_entropy):
    return ft.Learner(model, loss, optimizer)


def private(max_norm=1e9, noise=0.0, **options):
    return optim.dpsgd(1.0, max_norm, noise, **options)


def stepped(learner, batch, jit=False):
    state = ft.init(learner, ft.random.key(0), (X[:1], batch[1][:1]))
    step = ft.train_step(learner)
    return (ft.jit(step) if jit else step)(state, batch)


def gradients(weight=None, max_norm=None, lot_size=None):
    """By a loop over the rows, in plain PyTorch."""
    state = ft.init(learner_of(private()), ft.random.key(0), (X[:1], LABELS[:1]))
    leaves, structure = tree.flatten(state.params)
    total, rows = [torch.zeros_like(leaf) for leaf in leaves], weight if weight is not None else torch.ones(12)
    for x, label, w in zip(X, LABELS, rows, strict=True):
        variables = [leaf.clone().requires_grad_() for leaf in leaves]
        prediction, _ = MODEL.apply(tree.unflatten(structure, variables), {}, x[None])
        loss = w * torch.nn.functional.cross_entropy(prediction, label[None])
        grads = torch.autograd.grad(loss, variables)
        norm = torch.stack([g.norm() for g in grads]).norm()
        factor = 1.0 if max_norm is None else min(1.0, max_norm / max(norm.item(), 1e-30))
        total = [t + factor * g for t, g in zip(total, grads, strict=True)]
    size = lot_size or rows.sum()
    return state.params, tree.unflatten(structure, [t / size for t in total])


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("weight", [None, WEIGHTS])
@pytest.mark.parametrize("max_norm, lot_size", [(None, None), (0.5, None), (0.3, 20)])
def test_it_is_a_loop_over_the_rows(jit, weight, max_norm, lot_size):
    params, mean = gradients(weight, max_norm, lot_size)
    batch = (X, LABELS) if weight is None else (X, LABELS, weight)
    state, logs = stepped(learner_of(private(max_norm or 1e9, lot_size=lot_size)), batch, jit)
    expected = tree.map(lambda p, g: p - g, params, mean)
    assert not tree.differences(state.params, expected, rtol=1e-5, atol=1e-6)
    plain, plain_logs = stepped(learner_of(optim.sgd(1.0)), batch)
    assert logs["loss"].item() == pytest.approx(plain_logs["loss"].item(), rel=1e-6)
    if max_norm is None:
        assert not tree.differences(state.params, plain.params, rtol=1e-5, atol=1e-6)


def test_weights_of_elements_and_losses_of_elements():
    targets, weight = torch.randn(12, 3), (torch.arange(36).reshape(12, 3) % 4).float()
    weight[2] = 0
    for batch in ((X, targets), (X, targets, weight), (X, targets, WEIGHTS)):
        one, _ = stepped(learner_of(private(), loss=losses.mse), batch)
        other, _ = stepped(learner_of(optim.sgd(1.0), loss=losses.mse), batch)
        assert not tree.differences(one.params, other.params, rtol=1e-5, atol=1e-6)


def test_what_a_row_without_weight_holds_has_no_influence():
    learner = learner_of(optim.dpsgd(1.0, 0.5, 1.0))
    bad = X.clone()
    bad[3::4] = float("nan")
    one, other = (stepped(learner, (x, LABELS, WEIGHTS))[0] for x in (X, bad))
    assert tree.equal(one, other)
    zero, _ = stepped(learner, (X, LABELS, torch.zeros(12)))
    assert tree.equal(zero.params, ft.init(learner, ft.random.key(0), (X[:1], LABELS[:1])).params)


def test_no_weight_makes_an_example_count_more_than_the_norm():
    grads = []
    for weight in (torch.tensor([1.0, 1e6]), torch.tensor([1.0, 0.0])):
        learner = learner_of(private(0.5, lot_size=1))
        state = ft.init(learner, ft.random.key(0), (X[:1], LABELS[:1]))
        after, _ = ft.train_step(learner)(state, (X[:2], LABELS[:2], weight))
        grads.append(tree.map(lambda a, b: a - b, state.params, after.params))
    assert tree.global_norm(tree.map(lambda a, b: a - b, *grads)).item() == pytest.approx(0.5, rel=1e-4)


def test_the_noise_is_that_of_the_key_and_of_the_right_size():
    zeros = {"w": torch.zeros(20000), "z": torch.zeros(10000, dtype=torch.complex64)}
    piece = optim.add_private_noise(2.0, 1.5, lot_size=10)
    one, same, other = (piece.update(zeros, (), zeros, optim.Context(key=ft.random.key(seed)))[0] for seed in (0, 0, 1))
    assert tree.equal(one, same) and not tree.equal(one, other)
    for noise in (one["w"], torch.view_as_real(one["z"]).flatten()):
        assert noise.std().item() == pytest.approx(0.3, rel=0.03) and abs(noise.mean().item()) < 0.01


@pytest.mark.parametrize("jit, chunk", [("aten", 1), ("aten", 4)])
def test_a_fit_is_the_same_compiled(jit, chunk):
    rows = data.ArrayDataset((X, LABELS))
    model = nn.serial(nn.dense(5), nn.dropout(0.2), nn.layer_norm(), nn.dense(3))
    learner = learner_of(optim.dpsgd(0.1, 0.5, 0.8, momentum=0.9), model)
    loader = data.loader(rows, data.shuffled(5, remainder="pad"))
    runs = [
        ft.fit(learner, ft.init(learner, ft.random.key(0), rows[:1]), train=loader, epochs=2, jit=j, chunk=c)
        for j, c in ((False, 1), (jit, chunk))
    ]
    assert not tree.differences(runs[0].state, runs[1].state, rtol=1e-4, atol=1e-5)
    assert runs[0].history.columns == runs[1].history.columns


def test_examples_draw_by_themselves():
    model = nn.serial(nn.dropout(0.5), nn.dense(1, bias=False))
    learner = learner_of(private(), model, losses.mse)
    batch = torch.ones(64, 50), torch.zeros(64, 1)
    state = ft.init(learner, ft.random.key(0), batch)
    begun = train_stages(learner)
    prediction = begun(begin(learner, state, data.as_batch(batch))).prediction
    assert prediction.shape == (64, 1) and prediction.unique().numel() > 50


def test_groups_and_frozen_parameters():
    rest = {"0": 0.5, "rest": 0.25}
    parts = optim.partition({"0": private(0.5), "rest": private(0.25)}, {"0": "0.*", "rest": ...})
    state, _ = stepped(learner_of(parts), (X, LABELS))
    begun = ft.init(learner_of(parts), ft.random.key(0), (X[:1], LABELS[:1]))
    for name in rest:
        only = optim.freeze("2.*" if name == "0" else "0.*", private(rest[name]))
        alone, _ = stepped(learner_of(only), (X, LABELS))
        key, other = ("0", "2") if name == "0" else ("2", "0")
        assert tree.equal(alone.params[key], state.params[key])
        assert tree.equal(alone.params[other], begun.params[other])


def test_clipped_batches_accumulate_and_the_noise_comes_once():
    noisy = optim.chain(optim.add_private_noise(0.5, 0.0, lot_size=12), optim.scale_by_learning_rate(1.0))
    learner = learner_of(optim.chain(optim.clip_per_example(0.5), optim.accumulate(3, noisy)))
    state = ft.init(learner, ft.random.key(0), (X[:1], LABELS[:1]))
    step = ft.train_step(learner)
    for rows in (slice(0, 5), slice(5, 7), slice(7, 12)):
        state, _ = step(state, (X[rows], LABELS[rows]))
    params, mean = gradients(None, 0.5)
    assert not tree.differences(state.params, tree.map(lambda p, g: p - g, params, mean), rtol=1e-5, atol=1e-6)


def test_a_loss_of_named_parts_and_a_dictionary_as_a_prediction():
    model = nn.layer("two", lambda x: {"w": torch.ones(4)}, lambda p, x: {"a": x @ p["w"], "b": x.sum(1)})

    def loss(prediction, target):
        error = (prediction["a"] - target).square()
        return {"loss": error + prediction["b"], "b": prediction["b"]}

    batch = X, torch.zeros(12)
    one, logs = stepped(learner_of(private(), model, loss), batch)
    other, plain = stepped(learner_of(optim.sgd(1.0), model, loss), batch)
    assert not tree.differences(one.params, other.params, rtol=1e-5, atol=1e-6)
    assert not tree.differences(logs, plain, rtol=1e-6)


# --- what is refused ---


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize(
    "model",
    [
        nn.serial(nn.dense(3), nn.batch_norm()),
        nn.from_module(torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3))),
    ],
)
def test_a_model_that_changes_its_buffers_is_refused(model, jit):
    with pytest.raises(InvalidArgument, match=r"makes new values of its buffers \(.*\) of all rows .* layer_norm"):
        stepped(learner_of(private(), model), (X, LABELS), jit)


def test_buffers_that_stay_are_no_matter():
    module = torch.nn.Sequential(torch.nn.Linear(4, 3))
    module.register_buffer("constant", torch.ones(3))
    one, _ = stepped(learner_of(private(), nn.from_module(module)), (X, LABELS))
    other, _ = stepped(learner_of(optim.sgd(1.0), nn.from_module(module)), (X, LABELS))
    assert not tree.differences(one.params, other.params, rtol=1e-5, atol=1e-6)


def test_what_makes_no_row_of_a_row_is_refused():
    model = nn.serial(nn.dense(3), lambda x: x.mean(0))
    with pytest.raises(ShapeMismatch, match=r"must make one row of one row, and they made float32\(3,\)"):
        stepped(learner_of(private(), model, lambda p, t: p.sum(-1, keepdim=True)), (X, LABELS))


@pytest.mark.parametrize("event", ["after_pred", "after_loss"])
def test_handlers_inside_are_refused(event):
    callback = ft.Callback("inside", {event: lambda step: None})
    with pytest.raises(InvalidArgument, match="no batch between forward and loss for handlers of after_pred and"):
        train_stages(learner_of(private()), [callback])


def test_a_handler_that_replaces_the_gradient_is_refused_and_one_that_looks_is_not():
    def looking(step):
        return ft.log(step, "length", tree.global_norm(step.grads))

    def halving(step):
        return tree.evolve(step, grads=tree.map(lambda g: g / 2, step.grads))

    rows = data.ArrayDataset((X, LABELS))
    learner = learner_of(private())
    for handler in (looking, halving):
        fit = dict(
            train=data.loader(rows, data.sequential(6)),
            epochs=1,
            callbacks=[ft.Callback("it", {"after_grads": handler})],
        )
        state = ft.init(learner, ft.random.key(0), rows[:1])
        if handler is looking:
            assert "train/length" in ft.fit(learner, state, **fit).history.columns
        else:
            with pytest.raises(InvalidArgument, match="a handler of after_grads replaced the gradient"):
                ft.fit(learner, state, **fit)


@pytest.mark.parametrize(
    "optimizer",
    [
        optim.chain(optim.add_decayed_weights(0.1), private()),
        optim.flatten(private()),
    ],
)
def test_what_changes_the_gradient_before_is_refused(optimizer):
    with pytest.raises(InvalidArgument, match="nothing may change the gradient before it; make it the first piece"):
        stepped(learner_of(optimizer), (X, LABELS))


def test_arguments_out_of_range_are_named():
    for make, message in (
        (lambda: optim.dpsgd(0.1, max_norm=-1.0), "max_norm must be a number of at least 0"),
        (lambda: optim.dpsgd(0.1, noise_multiplier=-1.0), "noise_multiplier must be a number of at least 0"),
        (lambda: optim.dpsgd(0.1, lot_size=0), "lot_size must be a whole number of examples, at least 1"),
        (lambda: optim.dpsgd(-0.1), "lr must be a number of at least 0"),
        (lambda: optim.accumulate(2, private()), "looks at single examples, .* put clip_per_example before accumulate"),
    ):
        with pytest.raises(InvalidArgument, match=message):
            make()
    params = {"w": torch.zeros(2)}
    with pytest.raises(
        InvalidArgument, match=r"needs the gradient of each example .*pass optim.Context\(examples=...\)"
    ):
        private().update(params, private().init(params), params, optim.Context(key=ft.random.key(0)))


def test_a_gradient_that_is_not_finite_is_not_hidden():
    params, rows = {"w": torch.zeros(2)}, torch.tensor([[float("inf"), 1.0], [1.0, 1.0]])
    mean = {"w": rows.mean(0)}
    context = optim.Context(examples=optim.Examples({"w": rows}, torch.tensor(2.0), mean))
    assert optim.clip_per_example(1.0).update(mean, (), params, context)[0]["w"].isnan().all()
