"""The law of errors: the same error at the same batch, eager and compiled, by any chunk; and its run goes on."""

import os

import pytest
from random_faults import FAULTS, spoil
from random_fits import draw, run
from test_random_fits import same

from functrain import data
from functrain.train.looping.interruption import is_lost
from functrain.train.run import batches_done

SEEDS = range(int(os.environ.get("FUNCTRAIN_FAULTS", "2")))
WAYS = [(False, 1), (False, 3), (False, 1000), ("aten", 1), ("aten", 3), ("aten", 8), ("aten", 1000)]


def error_of(fit, jit, chunk):
    try:
        ended = run(fit, jit=jit, chunk=chunk)
    except Exception as error:
        return error
    assert ended.stopped is not None or "ending" in fit.words, fit.words  # a handler ended what would have failed
    return None


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("seed", SEEDS)
def test_an_error_is_the_same_however_the_batches_run(seed, name):
    fit = draw(100 * seed + 7 * list(FAULTS).index(name), rare=False)
    fault = spoil(fit, name, seed)
    errors = {way: error_of(fault.broken, *way) for way in WAYS}
    first = errors[WAYS[0]]
    assert first is not None or fit.words.find("ending") >= 0, fit.words
    for (jit, chunk), error in errors.items():
        words = (fit.words, name, jit, chunk, error)
        assert type(error) is type(first), words
        if error is None:
            continue
        expected = first if fault.alike or not jit else errors["aten", 1]
        assert str(error) == str(expected), words
        failed = error.run
        assert not is_lost(failed), words
        assert failed.cursor.epoch == first.run.cursor.epoch and failed.cursor.phase == first.run.cursor.phase, words
        behind = batches_done(first.run) - batches_done(failed)  # by the batches of the chunk that failed
        assert 0 <= behind < chunk, words
        if chunk == 1 and fault.batch is not None:
            assert failed.cursor.batch == fault.batch, words


@pytest.mark.parametrize("jit", [False, "aten"])
@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("seed", SEEDS)
def test_the_run_of_an_error_goes_on(seed, name, jit):
    rare = "label" not in name  # no number is a wrong label where targets are numbers, as with weights of elements
    fit = draw(100 * seed + 7 * list(FAULTS).index(name), rare)
    fault = spoil(fit, name, seed)
    error = error_of(fault.broken, jit, 3)
    if error is None:
        return
    if isinstance(fault.broken.train, data.Loader) and name != "label in arrays":
        whole = run(fault.whole, jit=jit, chunk=3)
        same(run(fault.whole, error.run, jit=jit, chunk=3), whole, (fit.words, name))
    else:  # a batch under way is part of the run; an iterable begins where it begins
        with pytest.raises(type(error)) as again:
            run(fault.broken, error.run, jit=jit, chunk=3)
        assert name == "too few" or str(again.value) == str(error)
