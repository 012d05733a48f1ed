"""A step that fails loses nothing: its error carries the run before its batch, whole, whatever the chunk."""

import pytest
import torch
from failing_steps import BATCHES, KINDS, SIZE, fragile, loader
from training_problems import stopping_at

import functrain as ft
from functrain import data, losses, nn, optim, tree
from functrain.train.looping import rebuilding
from functrain.train.looping.interruption import is_lost

LOOK = ft.Callback("look", {"begin_step": lambda step: None})
"""A handler that might repair a batch, so that training begins."""


def fit(failing, arrays, start=None, way="arrays", callbacks=(), **options):
    state = ft.init(failing.learner, ft.random.key(0), tuple(leaf[:SIZE] for leaf in failing.whole))
    options = {"epochs": 2, **options} if start is None else options
    taking_part = [LOOK, ft.callbacks.record(), *callbacks]
    train = loader(arrays, way)
    return ft.fit(failing.learner, state if start is None else start, train=train, callbacks=taking_part, **options)


def error_of(failing, at, **options):
    spoiled = failing.spoil(failing.whole, SIZE * at + 1)
    with pytest.raises(failing.error) as caught:
        fit(failing, spoiled, **options)
    assert not is_lost(caught.value.run)
    return caught.value


def same(one, other):
    assert tree.equal(one.state, other.state), tree.differences(one.state, other.state)
    assert tree.equal(dict(one.memory), dict(other.memory))
    assert one.history == other.history


def recorded(run):
    return torch.cat([piece["loss"] for piece in run.memory["record"]])


@pytest.fixture(scope="module", params=KINDS)
def failing(request):
    return KINDS[request.param]()


@pytest.fixture(params=[2, 16, None])
def copies(request, monkeypatch):
    """So many calls are made again at most, where the state is large."""
    if request.param is not None:
        request.getfixturevalue("large")
        monkeypatch.setattr(rebuilding, "MOST_CALLS", request.param)


@pytest.mark.parametrize("way", ["large", "small", "plain"])
def test_the_run_is_the_same_whatever_the_chunk_and_goes_on(failing, way, request):
    if way == "large":
        request.getfixturevalue("large")
    jit = "aten" if way != "plain" else False
    whole = fit(failing, failing.whole, jit=jit)
    for at in (1, BATCHES - 1):
        errors = [error_of(failing, at, jit=jit, chunk=chunk) for chunk in (1, 3, 8)]
        stopped = fit(failing, failing.whole, callbacks=[stopping_at(at)], jit=jit)
        for error in errors:
            assert (error.run.epoch, error.run.step, error.run.cursor.event) == (0, at, "step")
            assert str(error) == str(errors[0])
            assert tree.equal(error.run.state, stopped.state)
            assert torch.equal(recorded(error.run), recorded(stopped.point))
            bad = ft.batch_at(error.run, loader(failing.spoil(failing.whole, SIZE * at + 1), "arrays"))
            assert not tree.equal((bad.input, bad.target), tuple(leaf[SIZE * at :][:SIZE] for leaf in failing.whole))
        same(fit(failing, failing.whole, errors[at % 3].run, jit=jit, chunk=3), whole)


@pytest.mark.parametrize("way", ["list", "anew", "collated"])
def test_batches_one_by_one(failing, way, copies):
    at = 6
    error = error_of(failing, at, way=way)
    assert tree.equal(error.run.state, fit(failing, failing.whole, callbacks=[stopping_at(at)], way=way).state)
    if way != "anew":
        same(fit(failing, failing.whole, error.run, way=way), fit(failing, failing.whole, way=way))


@pytest.mark.usefixtures("large")
def test_inductor_gives_the_run_before_its_chunk():
    failing = KINDS["label"]()
    options = dict(jit="inductor", chunk=3)
    whole = fit(failing, failing.whole, **options)
    error = error_of(failing, 7, **options)
    assert error.run.step == 6
    assert "label" in str(error)
    same(fit(failing, failing.whole, error.run, **options), whole)


# Errors that do not come again, that always come again, and that are none


def stubborn(moods):
    """Return a model whose operator counts its calls in `moods["met"]` and raises what stands at that count."""

    @torch.library.custom_op(f"functrain_tests::moody_{id(moods)}", mutates_args=())
    def moody(x: torch.Tensor) -> torch.Tensor:
        if "met" in moods:
            moods["met"] += 1
            if moods["met"] in moods:
                raise moods[moods["met"]]
        return x.clone()

    moody.register_fake(lambda x: torch.empty_like(x))
    moody.register_autograd(lambda ctx, grad: grad)
    return nn.serial(nn.dense(4), moody, nn.dense(2))


def moody_fit(moods, start=None, **options):
    learner = ft.Learner(stubborn(moods), losses.cross_entropy, optim.sgd(0.1, momentum=0.9))
    inputs = torch.linspace(-1, 1, 33).reshape(11, 3).repeat_interleave(SIZE, 0)
    arrays = (inputs, (torch.arange(len(inputs)) % 2))
    state = ft.init(learner, ft.random.key(0), tuple(leaf[:SIZE] for leaf in arrays))
    return learner, state, arrays


class Sentinel(KeyboardInterrupt):
    """Ctrl-C that comes in the middle of a kernel, as a second one does."""


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("error", [OSError("once"), Sentinel()], ids=["error", "interrupt"])
@pytest.mark.parametrize("chunk", [1, 3])
def test_what_does_not_come_again_is_raised_and_the_run_is_whole(error, chunk):
    moods = {}
    learner, state, arrays = moody_fit(moods)

    def fitting(start, **options):
        return ft.fit(learner, start, train=data.loader(data.ArrayDataset(arrays), data.sequential(SIZE)), **options)

    whole = fitting(state, epochs=1, chunk=chunk)
    moods.update({"met": 0, 9: error})
    with pytest.raises(type(error)) as caught:
        fitting(state, epochs=1, chunk=chunk)
    moods.clear()
    run = caught.value.run
    assert not is_lost(run)
    assert tree.equal(fitting(run, chunk=chunk).state, whole.state)


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("chunk", [1, 3])
def test_what_comes_again_wherever_gives_a_copy(chunk):
    moods = {}
    learner, state, arrays = moody_fit(moods)
    train = data.loader(data.ArrayDataset(arrays), data.sequential(SIZE))
    whole = ft.fit(learner, state, train=train, epochs=1, chunk=chunk)
    moods.update({"met": 0, **dict.fromkeys(range(9, 1000), OSError("gone"))})
    with pytest.raises(OSError, match="gone") as caught:
        ft.fit(learner, state, train=train, epochs=1, chunk=chunk)
    moods.clear()
    assert not is_lost(caught.value.run)
    assert tree.equal(ft.fit(learner, caught.value.run, train=train, chunk=chunk).state, whole.state)


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("chunk", [1, 4])
def test_a_step_of_ones_own(chunk):
    inputs = torch.arange(12.0)[:, None].repeat(1, 2)
    bad = inputs.clone()
    bad[9] = 99

    def step(total, batch):
        x = fragile(batch.input).sum()
        return {"sum": total["sum"] + x, "product": total["product"] * (1 + x / 100)}, {"x": x}

    def run(arrays, state, **options):
        train = data.loader(data.ArrayDataset((arrays, torch.zeros(12))), data.sequential(2))
        return ft.loop(step, state, train=train, chunk=chunk, callbacks=[ft.callbacks.record()], **options)

    begun = {"sum": torch.zeros(()), "product": torch.ones(())}
    whole = run(inputs, begun, key=ft.random.key(0), epochs=1)
    with pytest.raises(MemoryError) as caught:
        run(bad, begun, key=ft.random.key(0), epochs=1)
    assert caught.value.run.step == 4
    same(run(inputs, caught.value.run), whole)
