"""Means of the weights against torch.optim.swa_utils, over whole fits, compiled, in chunks and resumed."""

import itertools

import pytest
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn

import functrain as ft
from functrain import callbacks, checkpoint, data, losses, nn, optim, schedule, tree
from functrain.errors import InvalidArgument
from functrain.train import remember

GENERATOR = torch.Generator().manual_seed(0)
ROWS = data.ArrayDataset((torch.randn(40, 3, generator=GENERATOR), torch.randint(2, (40,), generator=GENERATOR)))
MODEL = nn.serial(nn.dense(4), nn.batch_norm(), torch.relu, nn.dense(2))
EPOCHS, STEPS = 3, 15


def learner(optimizer=None):
    return ft.Learner(MODEL, losses.cross_entropy, optimizer or optim.sgd(lr=0.3))


def fit(callback, begin=None, **options):
    one = learner(options.pop("optimizer", None))
    begin = ft.init(one, ft.random.key(0), ROWS[:1]) if begin is None else begin
    loader = data.loader(ROWS, data.shuffled(batch_size=8))
    return ft.fit(one, begin, train=loader, callbacks=callback, **{"epochs": EPOCHS, **options})


def course(optimizer=None):
    """The states of the fit after each step, the first one before it."""
    states = []

    def keep(run):
        states.append(run.state)

    fit([ft.Callback("keeper", {"begin_fit": keep, "after_batch": keep})], optimizer=optimizer)
    return states


def theirs(states, **options):
    """The leaves of the mean that torch keeps of some states."""
    module = torch.nn.Module()
    for path, leaf in tree.leaves_with_path((states[0].params, states[0].buffers)):
        module.register_buffer(path.replace(".", "_"), leaf.clone())
    mean = AveragedModel(module, use_buffers=True, **options)
    for state in states:
        for path, leaf in tree.leaves_with_path((state.params, state.buffers)):
            setattr(module, path.replace(".", "_"), leaf)
        mean.update_parameters(module)
    return [leaf for _, leaf in mean.module.named_buffers()]


def differ(mean, wanted):
    floats = [i for i, leaf in enumerate(wanted) if leaf.is_floating_point()]
    ours = tree.leaves((mean.params, mean.buffers))
    return tree.differences([ours[i] for i in floats], [wanted[i] for i in floats], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"jit": False}, {"chunk": 4}])
def test_an_exponential_mean_is_torchs_buffers_included(options):
    run = fit([callbacks.ema(0.8)], **options)
    assert not differ(run.memory["ema"], theirs(course(), avg_fn=get_ema_avg_fn(0.8)))
    assert int(run.memory["ema"].count) == STEPS + 1


@pytest.mark.parametrize(("start", "every"), [(0.0, 1), (0.6, 1), (1 / 3, 3)])
def test_an_equal_mean_is_torchs_of_the_states_that_count(start, every):
    run = fit([callbacks.swa(start, every)])
    counting = [s for k, s in enumerate(course()) if k >= 1 and (k - 1) / STEPS >= start - 1e-9 and k % every == 0]
    assert not differ(run.memory["swa"], theirs(counting))
    assert int(run.memory["swa"].count) == len(counting)


def test_only_updates_count():
    optimizer = optim.accumulate(5, optim.sgd(0.3))
    run = fit([callbacks.ema(0.5)], optimizer=optimizer)
    states = course(optimizer)
    made = [b for a, b in itertools.pairwise(states) if int(a.updates) != int(b.updates)]
    assert not differ(run.memory["ema"], theirs([states[0], *made], avg_fn=get_ema_avg_fn(0.5)))
    assert int(run.memory["ema"].count) == len(made) + 1 == 4


def test_a_scheduled_decay_and_two_means_side_by_side():
    steps = schedule.piecewise_constant([0.4], [0.0, 1.0])
    run = fit([callbacks.ema(steps), callbacks.ema(1.0, name="still")])
    states = course()
    assert not tree.differences(run.memory["ema"].params, states[6].params, rtol=1e-6, atol=1e-7)
    assert tree.equal(run.memory["still"].params, states[0].params)


def test_a_run_that_goes_on_goes_on_with_its_mean():
    def stop(run):
        return ft.Stop(run, scope="fit", reason="half") if run.state.step == 5 else None

    both = [callbacks.ema(0.8), ft.Callback("stopper", {"after_epoch": stop})]
    half = fit(both)
    assert int(half.memory["ema"].count) == 6
    rest = fit(both, begin=half)
    assert tree.equal(rest.memory["ema"], fit([callbacks.ema(0.8)]).memory["ema"])


def test_the_averaged_state_can_be_evaluated():
    run = fit([callbacks.ema(0.5)])
    state = callbacks.apply_average(run.state, run.memory["ema"])
    assert tree.structure(state) == tree.structure(run.state) and not tree.equal(state.params, run.state.params)
    logs = ft.eval_step(learner())(state, ROWS[:8])
    assert logs["loss"].isfinite()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: callbacks.ema(1.5), "decay must be a number of at least 0 and of at most 1"),
        (lambda: callbacks.swa(1.0), r"start must be a position in \[0, 1\), got 1.0"),
        (lambda: callbacks.swa(0.5, 0), "every must be"),
    ],
)
def test_bad_input_is_refused_in_words(make, message):
    with pytest.raises(InvalidArgument, match=message):
        make()


def own_mean():
    """A user's mean of the weights: its memory is empty until the fit begins, and holds no record."""
    return ft.Callback(
        "own",
        {
            "begin_fit": lambda run: remember(run, "own", run.memory["own"] or {"mean": run.state.params}),
            "after_step": lambda step: remember(
                step, "own", {"mean": tree.map(lambda m, p: (m + p) / 2, step.memory["own"]["mean"], step.state.params)}
            ),
        },
        memory=(),
    )


@pytest.mark.parametrize("mean", [lambda: callbacks.ema(0.8), callbacks.swa, own_mean], ids=["ema", "swa", "own"])
def test_a_mean_goes_on_from_each_file_to_the_bit(mean, tmp_path):
    whole = fit([mean(), callbacks.save_checkpoints(tmp_path / "all", every=2, keep_last=None)], chunk=1)
    entries = checkpoint.entries(tmp_path / "all")
    assert len(entries) > 5
    for number, entry in enumerate([*entries[::3], entries[-1]]):
        saving = callbacks.save_checkpoints(tmp_path / str(number), every=2)
        again = fit([mean(), saving], begin=checkpoint.restore(entry.path), chunk=1)
        assert tree.equal(again.state, whole.state) and tree.equal(again.memory, whole.memory)
