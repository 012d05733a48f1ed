"""Many threads: what each of them gets is what it gets alone, whatever the others trace, compile, donate or train."""

import os
import subprocess
import sys
import threading
from functools import partial

import pytest
import torch
import torch.nn.functional as F

import functrain as ft
from functrain import callbacks, data, losses, nn, optim
from functrain.engine import grad, jit
from functrain.engine.backends.aten import predictions
from functrain.errors import DonatedValueUsed


@pytest.fixture(autouse=True)
def threads_that_change_often():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def at_once(tasks):
    """Run functions in a thread each, all beginning together; return what each returned or raised."""
    barrier, out = threading.Barrier(len(tasks)), [None] * len(tasks)

    def run(k):
        barrier.wait(60)
        try:
            out[k] = tasks[k]()
        except Exception as error:
            out[k] = error

    threads = [threading.Thread(target=run, args=(k,)) for k in range(len(tasks))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not any(thread.is_alive() for thread in threads)
    return out


def program(k):
    """Return one of many functions of a tensor, which closes over a tensor of its own."""
    scale = torch.full((4,), 1.0 + k)

    def f(x):
        y = x.clone()
        for n in range(1 + k % 5):
            y.add_(x * scale).tanh_()
            y[n % 3 :] *= float(k + n)
        return y, grad(lambda v: (v * scale).sin().sum())(x)

    return f


def test_different_functions_traced_at_once_are_each_right():
    x = torch.randn(4, generator=torch.Generator().manual_seed(0))
    functions = [program(k) for k in range(16)]
    expected = [f(x) for f in functions]
    for _ in range(3):
        ours = at_once([partial(jit(f), x) for f in functions])
        assert all(torch.equal(a, b) for e, o in zip(expected, ours, strict=True) for a, b in zip(e, o, strict=True))


def test_one_function_called_first_by_many_threads_is_traced_once():
    x = torch.randn(4, generator=torch.Generator().manual_seed(0))
    for k in range(8):
        f, expected = jit(program(k)), program(k)(x)
        ours = at_once([lambda f=f: f(x)] * 8)
        assert all(torch.equal(a, b) for o in ours for a, b in zip(expected, o, strict=True))
        assert len(f.traces) == 1


def test_a_wrong_prediction_is_seen_whichever_thread_calls_first(monkeypatch):
    tried = []
    check = predictions._agree

    def agree(seen, said):
        tried.append(threading.get_ident())
        return len(tried) > 1 and check(seen, said)

    monkeypatch.setattr(predictions, "_agree", agree)
    f = jit(lambda x: (x.exp() + 1, x.t().contiguous()))
    x = torch.randn(3, 2)
    ours = at_once([lambda: f(x)] * 6)
    assert all(torch.equal(o[0], x.exp() + 1) and torch.equal(o[1], x.t()) for o in ours)
    assert len(f.traces) == 1


def test_of_threads_that_donate_one_tensor_one_gets_the_result_and_the_others_an_error():
    f, g = jit(lambda p: (p * 2 + 1) * 3, donate=0), jit(lambda p: (p * 2 + 1) * 3, donate=0)
    for first in (f, g):
        first(torch.ones(1000))
    for _ in range(50):
        p = torch.ones(1000)
        out = at_once([lambda p=p: f(p), lambda p=p: g(p), lambda p=p: f(p), lambda p=p: g(p)])
        results = [o for o in out if isinstance(o, torch.Tensor)]
        assert len(results) == 1
        assert torch.equal(results[0], torch.full((1000,), 9.0))
        assert sum(isinstance(o, DonatedValueUsed) for o in out) == 3


def test_compiling_is_said_in_the_thread_that_traces_alone():
    seen = {}

    def f(x):
        inside = threading.Thread(target=lambda: seen.update(other=bool(torch.compiler.is_compiling())))
        inside.start()
        inside.join(60)
        seen.update(own=bool(torch.compiler.is_compiling()))
        return x + 1

    jit(f)(torch.ones(2))
    assert seen == {"other": False, "own": True}
    assert torch.compiler.is_compiling() is False


def eager_training():
    torch.set_grad_enabled(True)
    generator = torch.Generator().manual_seed(1)
    w = torch.randn(8, 8, generator=generator).requires_grad_()
    optimizer = torch.optim.AdamW([w], lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        x = torch.randn(16, 8, generator=generator)
        loss = F.mse_loss(torch.tanh(x @ w), x)
        loss.backward()
        optimizer.step()
    return w.detach()


def test_a_thread_that_trains_eagerly_gets_the_same_numbers_while_others_trace():
    expected = eager_training()

    def trace_much():
        x = torch.ones(4)
        return [jit(program(k))(x) for k in range(40)]

    out = at_once([eager_training, trace_much, trace_much])
    assert torch.equal(out[0], expected)
    assert len(out[1]) == len(out[2]) == 40


def fitted(width, seed, chunk, extra):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(96, 6, generator=generator)
    y = torch.randint(0, 3, (96,), generator=generator)
    learner = ft.Learner(
        model=nn.serial(nn.dense(width), nn.relu, nn.dropout(0.3), nn.dense(3)),
        loss=losses.cross_entropy,
        optimizer=optim.adamw(lr=0.01),
    )
    train = data.ArrayDataset((x, y))
    run = ft.fit(
        learner,
        ft.init(learner, ft.random.key(seed), train[:1]),
        train=data.loader(train, data.shuffled(batch_size=10)),
        valid=data.loader(train, data.sequential(batch_size=32)),
        epochs=2,
        chunk=chunk,
        callbacks=extra(),
    )
    return run.state.params, run.history


def test_fits_in_threads_give_the_numbers_that_they_give_one_after_another():
    jobs = [
        (5, 0, 1, list),
        (7, 1, 4, lambda: [callbacks.early_stopping("valid/loss", patience=5)]),
        (5, 0, 4, lambda: [callbacks.early_stopping("valid/loss", patience=5)]),
        (9, 2, 1, list),
    ]
    expected = [fitted(*job) for job in jobs]
    ours = at_once([lambda job=job: fitted(*job) for job in jobs])
    for e, o in zip(expected, ours, strict=True):
        assert not isinstance(o, Exception), o
        assert ft.tree.equal(e[0], o[0])
        assert repr(e[1]) == repr(o[1])


FORKED = """
import os, threading, torch, functrain as ft
from functrain.engine.calling.locks import donating, tracing
held, over = threading.Event(), threading.Event()
def hold():
    with tracing(), donating:
        held.set()
        over.wait(60)
thread = threading.Thread(target=hold)
thread.start()
held.wait(60)
child = os.fork()
if child == 0:
    os._exit(int(ft.jit(lambda x: x + 1, donate=0)(torch.ones(1)) + 5))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
over.set()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_process_forked_while_another_thread_traces_can_trace():
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", FORKED], capture_output=True, text=True, timeout=100)
    assert done.stdout == "7\n", done.stderr


def test_forward_derivatives_in_threads_are_those_of_one():
    def cubes(x):
        return (x**3).sum()

    x = torch.tensor([1.0, 2.0, 3.0])
    wanted = torch.diag(6 * x)
    wrong: list = []

    def work(compiled):
        for _ in range(20):
            try:
                found = (ft.jit(ft.hessian(cubes)) if compiled else ft.hessian(cubes))(x)
                if not torch.allclose(found, wanted):
                    wrong.append(found)
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=work, args=(k % 2 == 0,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert wrong == []
