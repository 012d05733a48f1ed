"""What handlers, memories, logs and learners may and may not do, each refused in words or right."""

import contextlib
import math

import attrs
import pytest
import torch
from training_problems import eager, noting, problem, stopping_at

import functrain as ft
from functrain import callbacks, data, losses, metrics, nn, optim, schedule, tree
from functrain.errors import DuplicateName, InvalidArgument, InvalidCallbackResult, InvalidMemory
from functrain.train.stepping.handlers import MAY_REPLACE

BOTH = pytest.mark.parametrize("jit", [False, "aten"])


def changing(**changes):
    return lambda record: attrs.evolve(record, **{name: change(record) for name, change in changes.items()})


# Handlers may replace any field that is read later, or are told which


@BOTH
@pytest.mark.parametrize("event", ft.train.STEP_EVENTS)
@pytest.mark.parametrize("field", ["state", "prediction", "grads", "losses", "loss", "buffers", "measured"])
def test_what_a_step_handler_changes_is_kept_or_refused_in_words(jit, event, field):
    learner, state, train, _ = problem(n=16)

    def change(step):
        old = getattr(step, field)
        old = step.state.params if old is None else old
        return attrs.evolve(step, **{field: tree.map(lambda leaf: leaf * 1, old)})

    changed = ft.Callback("change", {event: change})
    if ("_loss" if field == "loss" else field) in MAY_REPLACE[event]:
        ft.fit(learner, state, train=train, epochs=1, jit=jit, callbacks=[changed])
        return
    with pytest.raises(
        InvalidCallbackResult, match=rf"callback 'change', event '{event}'.*may replace.*{field}, which"
    ):
        ft.fit(learner, state, train=train, epochs=1, jit=jit, callbacks=[changed])


@BOTH
def test_a_state_changed_at_the_end_of_a_validation_step_would_be_lost(jit):
    learner, state, train, valid = problem(n=16)
    zero = changing(state=lambda step: attrs.evolve(step.state, params=tree.zeros_like(step.state.params)))
    options = dict(train=train, valid=valid, epochs=1, jit=jit)
    with pytest.raises(InvalidCallbackResult, match=r"'after_step'.* may replace logged, .* it replaced state, which"):
        ft.fit(learner, state, callbacks=[ft.Callback("zero", {"after_step": zero}, phases=("valid",))], **options)
    blind = ft.Callback("zero", {"begin_step": zero}, phases=("valid",))  # which the batch is evaluated with
    run = ft.fit(learner, state, callbacks=[blind], **options)
    assert tree.equal(run.state, ft.fit(learner, state, **options).state)
    assert run.history["valid/loss"] == pytest.approx([math.log(3)], rel=1e-5)


@BOTH
def test_a_state_changed_after_the_gradients_is_kept(jit):
    learner, state, train, _ = problem(n=16, model=nn.dense(3), optimizer=optim.sgd(0.0))
    for event in ("begin_step", "after_grads", "after_step"):
        zero = changing(state=lambda step: attrs.evolve(step.state, params=tree.zeros_like(step.state.params)))
        run = ft.fit(learner, state, train=train, epochs=1, jit=jit, callbacks=[ft.Callback("zero", {event: zero})])
        assert float(tree.global_norm(run.state.params)) == 0


@pytest.mark.parametrize(
    "changes",
    [
        dict(plan=lambda run: attrs.evolve(run.plan, epochs=9)),
        dict(cursor=lambda run: attrs.evolve(run.cursor, epoch=1)),
        dict(stopped=lambda run: ft.train.Stopped("fit", "", "x", "after_epoch")),
        dict(batch=lambda run: (torch.ones(1), torch.ones(1))),
    ],
    ids=["plan", "cursor", "stopped", "batch"],
)
def test_changes_of_a_run_that_would_be_ignored_are_refused(changes):
    learner, state, train, _ = problem(n=16)
    bad = ft.Callback("bad", {"after_epoch": changing(**changes)})
    with pytest.raises(InvalidCallbackResult, match=rf"it replaced {next(iter(changes))}, which would be lost"):
        eager(learner, state, train, callbacks=[bad])


def test_a_state_of_another_structure_is_refused():
    learner, state, train, _ = problem(n=16)
    bad = ft.Callback("bad", {"begin_epoch": changing(state=lambda run: attrs.evolve(run.state, params={}))})
    with pytest.raises(ft.errors.TreeMismatch, match="the state that the handler returned must have"):
        eager(learner, state, train, callbacks=[bad])


# Memory and resources


def test_a_memory_that_cannot_be_saved_is_refused():
    with pytest.raises(InvalidMemory, match=r"memory of callback 'mine' at file.*got object"):
        ft.Callback("mine", {}, memory={"file": object()})
    deep = ()
    for _ in range(40):
        deep = (deep,)
    with pytest.raises(InvalidMemory, match="more than 32 levels"):
        ft.Callback("mine", {}, memory=deep)
    with pytest.raises(InvalidMemory, match="no string"):
        ft.Callback("mine", {}, memory={(1, 2): 3})
    ft.Callback(
        "mine", {}, memory={"a": [1, 2.0, "x", None, True, torch.ones(1)], "b": callbacks.early_stopping().memory}
    )


@pytest.mark.parametrize(
    "memory", [lambda run: {**run.memory, "typo": 1}, lambda run: {}, lambda run: {"mine": {1j: 2}}]
)
def test_memories_are_checked_after_each_handler(memory):
    learner, state, train, _ = problem(n=16)
    with pytest.raises(InvalidMemory):
        eager(learner, state, train, callbacks=[ft.Callback("mine", {"after_epoch": changing(memory=memory)})])


def test_remembering_under_another_name_is_an_error():
    with pytest.raises(InvalidArgument, match=r"no callback 'typo' takes part.*there are \['mine'\]"):
        ft.train.remember(ft.Run(None, memory={"mine": 1}), "typo", 2)


@pytest.mark.parametrize("raises", [False, True])
def test_a_resource_is_open_from_begin_fit_to_after_fit(raises):
    learner, state, train, _ = problem(n=16)
    notes = []

    @contextlib.contextmanager
    def resource(run):
        notes.append("open")
        yield "live"
        notes.append("closed")

    def note(run, live):
        notes.append(live)
        if raises and len(notes) == 3:
            raise OSError("gone")

    mine = ft.Callback("mine", dict.fromkeys(("begin_fit", "after_epoch", "after_fit"), note), resource=resource)
    with pytest.raises(OSError) if raises else contextlib.nullcontext():
        eager(learner, state, train, callbacks=[mine])
    assert notes[0] == "open"
    assert notes[1:] == ["live"] * (3 if raises else 4) + ([] if raises else ["closed"])
    with pytest.raises(InvalidArgument, match="resource must be a function of the run"):
        ft.Callback("mine", {}, resource="file")


# What is logged and measured


@BOTH
@pytest.mark.parametrize("chunk", [1, 4])
def test_a_step_handler_logs_values(jit, chunk):
    learner, state, train, _ = problem()

    def norm(step):
        return ft.log(step, "norm", tree.global_norm(step.grads))

    run = ft.fit(
        learner,
        state,
        train=train,
        epochs=2,
        jit=jit,
        chunk=chunk,
        callbacks=[ft.Callback("norm", {"after_grads": norm}), callbacks.record()],
    )
    recorded = run.memory["record"]["norm"]
    rows = torch.tensor([8.0] * 6 + [2.0], dtype=torch.float64)
    expected = [float((part * rows).sum() / rows.sum()) for part in recorded.split(7)]
    assert run.history["train/norm"] == pytest.approx(expected, rel=1e-9)
    for bad, message in ((torch.ones(2), "must be a real scalar"), (1j, "must be a real scalar")):
        wrong = ft.Callback("bad", {"after_grads": lambda step, bad=bad: ft.log(step, "x", bad)})
        with pytest.raises(InvalidArgument, match=message):
            ft.fit(learner, state, train=train, epochs=1, jit=jit, callbacks=[wrong])
    with pytest.raises(InvalidArgument, match="the name 'accuracy' is taken"):
        wrong = ft.Callback("bad", {"after_grads": lambda step: ft.log(step, "accuracy", 1.0)})
        ft.fit(learner, state, train=train, epochs=1, jit=jit, callbacks=[wrong])


@BOTH
def test_the_named_parts_of_a_loss_are_in_history_and_record(jit):
    learner, state, train, valid = problem()

    def loss(prediction, target):
        penalty = prediction.square().sum(1)
        return {"loss": losses.cross_entropy(prediction, target) + 0.1 * penalty, "penalty": penalty}

    parted = attrs.evolve(learner, loss=loss)
    whole = attrs.evolve(learner, loss=lambda p, t: loss(p, t)["loss"])
    options = dict(train=train, valid=valid, epochs=2, jit=jit, callbacks=[callbacks.record()])
    run, other = ft.fit(parted, state, **options), ft.fit(whole, state, **options)
    assert not tree.differences(run.state, other.state, rtol=1e-5, atol=1e-6)
    prediction = ft.predict(learner, run.state, valid.dataset[:][0])
    assert run.history["valid/penalty"][-1] == pytest.approx(float(prediction.square().sum(1).mean()), rel=1e-5)
    assert run.memory["record"]["penalty"].shape == (14,)
    with pytest.raises(DuplicateName, match="the loss has a part 'accuracy'"):
        both = attrs.evolve(learner, loss=lambda p, t: {"loss": loss(p, t)["loss"], "accuracy": loss(p, t)["penalty"]})
        ft.fit(both, state, **options)


@BOTH
def test_metrics_for_validation_alone(jit):
    learner, state, train, valid = problem()
    learner = attrs.evolve(learner, metrics={}, valid_metrics={"accuracy": metrics.accuracy})
    run = ft.fit(learner, state, train=train, valid={"a": valid, "b": valid}, epochs=1, jit=jit)
    assert {"train/loss", "a/loss", "a/accuracy", "b/accuracy"} <= set(run.history.columns)
    assert "train/accuracy" not in run.history.columns
    assert run.history["a/accuracy"] == run.history["b/accuracy"]
    with pytest.raises(DuplicateName, match="valid_metrics: metrics has a 'accuracy' too"):
        attrs.evolve(learner, metrics={"accuracy": metrics.accuracy})


@BOTH
def test_both_counts_and_what_a_record_shows_is_what_the_step_used(jit):
    used = []
    rate = schedule.over_updates(10, schedule.linear(1.0, 0.0))
    optimizer = optim.accumulate(4, optim.sgd(lr=rate))
    learner, state, train, _ = problem(n=160, optimizer=optimizer, model=nn.dense(3))
    note = ft.Callback("note", {"after_step": lambda step: ft.log(step, "used", rate(step.progress.updates / 10))})
    run = ft.fit(learner, state, train=train, epochs=1, jit=jit, callbacks=[note, callbacks.record()])
    assert int(run.state.updates) == 5
    recorded = run.memory["record"]
    assert recorded["lr"].tolist() == pytest.approx([1 - 0.1 * (k // 4) for k in range(20)])
    assert recorded["lr"].tolist() == pytest.approx(recorded["used"].tolist())
    assert used == []


def test_accumulating_more_batches_than_there_are_says_so():
    learner, state, train, _ = problem(n=24, optimizer=optim.accumulate(4, optim.sgd(0.1)))
    with pytest.warns(UserWarning, match="no update of the parameters was made in 3 batches"):
        eager(learner, state, train, epochs=1)


# Where a run stopped


@BOTH
@pytest.mark.parametrize("event", ["begin_batch", "after_batch", "after_chunk", "begin_step", "after_step"])
def test_a_stop_says_at_which_batch(jit, event):
    learner, state, train, _ = problem()
    if event in ft.train.STEP_EVENTS:
        stop = lambda step: ft.Stop(step, scope="fit", when=step.state.step == 9)  # noqa: E731
    else:
        past = event != "begin_batch"
        stop = lambda run: ft.Stop(run, scope="fit", when=(run.epoch, run.step) == (1, 2 + past))  # noqa: E731
    run = ft.fit(
        learner, state, train=train, epochs=2, jit=jit, chunk=1, callbacks=[ft.Callback("stop", {event: stop})]
    )
    assert (run.stopped.event, run.stopped.epoch, run.stopped.batch) == (event, 1, 2)


@BOTH
def test_the_batch_at_which_a_fit_stopped_can_be_fetched(jit):
    learner, state, train, _ = problem()
    seen = []
    train = attrs.evolve(train, transform=lambda key, b: attrs.evolve(b, input=b.input + ft.random.uniform(key, (4,))))
    note = ft.Callback("note", {"begin_batch": lambda run: seen.append(run.batch)})
    run = ft.fit(learner, state, train=train, epochs=2, jit=jit, callbacks=[stopping_at(9), note])
    assert tree.equal(ft.batch_at(run, train), seen[-1])
    assert len(seen) == 10
    with pytest.raises(InvalidArgument, match="the run stands at no batch"):
        ft.batch_at(ft.fit(learner, run, train=train, jit=jit, callbacks=[stopping_at(9), note]), train)
    with pytest.raises(InvalidArgument, match="train must be a Loader or a list, whose batches can be reached"):
        ft.batch_at(run, range(1))


@BOTH
def test_going_on_after_the_best_state_was_restored_goes_on_from_the_last_one(jit):
    learner, state, train, valid = problem(optimizer=optim.sgd(lr=schedule.linear(0.1, 100.0)))
    stop = callbacks.early_stopping("valid/loss", patience=2, restore_best=True)
    options = dict(train=train, valid=valid, jit=jit, callbacks=[stop, callbacks.record()])
    run = ft.fit(learner, state, epochs=12, **options)
    assert run.stopped is not None and int(run.state.step) < int(run.point.state.step)
    assert int(run.point.state.step) == 7 * len(run.history)
    assert ft.fit(learner, run, **options) is run, "it is finished"
    on = ft.fit(learner, run.point, **options)
    assert len(on.history) == len(run.history) + 1
    assert on.memory["record"]["step"].tolist() == list(range(7 * len(on.history)))


def test_history_and_history():
    one = ft.train.History(({"epoch": 1, "a": 2.0},))
    assert list(one + one) == [{"epoch": 1, "a": 2.0}] * 2
    assert list(one + {"epoch": 2}) == [{"epoch": 1, "a": 2.0}, {"epoch": 2}]


def test_the_two_tolerances_of_early_stopping():
    learner, state, train, valid = problem(optimizer=optim.sgd(1e-4), model=nn.dense(3))
    stop = callbacks.early_stopping("valid/loss", patience=3, min_delta=1.0, restore_best=True)
    run = ft.fit(learner, state, train=train, valid=valid, epochs=20, callbacks=[stop])
    column = run.history["valid/loss"]
    assert len(column) == 4, "no later epoch improves by 1.0"
    assert run.memory["early_stopping"].epoch == min(range(4), key=column.__getitem__) > 0, "the best one is the best"


# What a model may do


@BOTH
def test_parameters_of_torch_are_taken_as_tensors(jit):
    dense = nn.dense(3)

    def init(key, example):
        params, buffers = dense.init(key, example)
        return {name: torch.nn.Parameter(value) for name, value in params.items()}, buffers

    learner, _, train, _ = problem(model=nn.dense(3))
    wrapped = attrs.evolve(learner, model=attrs.evolve(dense, init=init))
    state = ft.init(wrapped, ft.random.key(0), train.dataset[:1])
    assert all(type(leaf) is torch.Tensor and not leaf.requires_grad for leaf in tree.leaves(state.params))
    run = ft.fit(wrapped, state, train=train, epochs=1, jit=jit)
    plain = ft.fit(learner, ft.init(learner, ft.random.key(0), train.dataset[:1]), train=train, epochs=1, jit=jit)
    assert tree.equal(run.state, plain.state)


@BOTH
def test_a_loss_that_does_not_depend_on_the_parameters_is_refused(jit):
    learner, state, train, _ = problem(model=nn.dense(3))
    rounded = attrs.evolve(learner, loss=lambda p, t: (p.argmax(1) != t).float())
    notes = []
    with pytest.raises(InvalidArgument, match="the loss does not depend on the parameters"):
        ft.fit(rounded, state, train=train, epochs=1, jit=jit, callbacks=[noting(["begin_fit"], notes)])
    assert notes == []


@BOTH
@pytest.mark.parametrize("batch_size", [7, 49])
def test_a_last_batch_of_one_row_is_refused_before_training_or_trains_alike(jit, batch_size):
    learner, state, train, _ = problem(n=50, batch_size=batch_size)
    notes = []
    with pytest.raises(ft.errors.ShapeMismatch, match="batch_norm: training needs more than one value") as caught:
        ft.fit(learner, state, train=train, epochs=1, jit=jit, callbacks=[noting(["begin_fit"], notes)])
    assert "a last batch of one row of train" in caught.value.__notes__[-1] and notes == []


@BOTH
def test_an_index_out_of_range_is_named_before_training(jit):
    rows = data.ArrayDataset((torch.arange(20) % 7, torch.arange(20) % 3))
    learner = ft.Learner(nn.serial(nn.embedding(6, 4), nn.dense(3)), losses.cross_entropy, optim.sgd(0.1))
    state = ft.init(learner, ft.random.key(0), rows[:1])
    with pytest.raises(IndexError, match="embedding"):
        ft.fit(learner, state, train=data.loader(rows, data.sequential(4)), epochs=1, jit=jit)
