"""Nothing leaks: what belongs to a compiled function goes with it, whatever it was traced through."""

import gc
import itertools
import linecache
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch.fx.graph_module import _loader

import functrain as ft
from functrain import data, losses, nn, optim
from functrain.engine import check, grad, jit, remat, scan, vmap
from functrain.engine.tracing.to_graph import trace
from functrain.errors import NotTraceable

X, P = torch.randn(8, 4, generator=torch.Generator().manual_seed(0)), {"w": torch.ones(4, 3), "b": torch.zeros(3)}
CLASSES = torch.arange(8) % 3


def loss(p, x):
    return torch.tanh(x @ p["w"] + p["b"]).pow(2).sum()


def sgd(p, x):
    return {k: p[k] - 0.1 * g for k, g in grad(loss)(p, x).items()}


def closure(backend):
    large = torch.randn(1000)
    jit(lambda p, x: grad(lambda p: loss(p, x) + large.sum() * p["w"].sum())(p), backend=backend)(P, X)


def written(backend):
    def f(p, x):
        y = x.clone()
        y[0].mul_(2)
        return grad(loss)(p, y)

    jit(f, backend=backend)(P, X)


def refused(backend):
    def f(p, x):
        if grad(loss)(p, x)["b"].sum() > 0:
            return x

    with pytest.raises(NotTraceable):
        jit(f, backend=backend)(P, X)


class Bound:
    def __init__(self, backend):
        self.fast, self.scale = jit(self.step, backend=backend), torch.ones(3)

    def step(self, p, x):
        return grad(loss)(p, x)["b"] * self.scale


def fit(backend):
    model = nn.serial(nn.dense(5), nn.relu, nn.dropout(0.1), nn.dense(3))
    learner = ft.Learner(model, losses.cross_entropy, optim.adamw(lr=0.1))
    batches = data.loader(data.ArrayDataset((X, CLASSES)), data.sequential(batch_size=4))
    ft.fit(learner, ft.init(learner, ft.random.key(0), (X[:1], CLASSES[:1])), train=batches, epochs=1, jit=backend)


KINDS = {
    "plain": lambda b: jit(lambda p, x: torch.tanh(x @ p["w"]), backend=b)(P, X),
    "gradient": lambda b: jit(lambda p, x: grad(loss)(p, x), backend=b)(P, X),
    "gradient of torch.func": lambda b: jit(lambda p, x: torch.func.grad(loss)(p, x), backend=b)(P, X),
    "hessian": lambda b: jit(lambda p, x: torch.func.hessian(loss)(p, x), backend=b)(P, X),
    "forward mode": lambda b: jit(lambda x: torch.func.jvp(lambda x: loss(P, x), (x,), (x,)), backend=b)(X),
    "vmap": lambda b: jit(lambda p, x: vmap(lambda row: torch.func.grad(loss)(p, row))(x), backend=b)(P, X),
    "scan": lambda b: jit(lambda p, x: scan(lambda p, row: (sgd(p, row[None]), row.sum()), p, x), backend=b)(P, X),
    "remat": lambda b: jit(lambda p, x: grad(lambda p: remat(loss)(p, x))(p), backend=b)(P, X),
    "donated": lambda b: jit(sgd, donate=0, backend=b)({k: t.clone() for k, t in P.items()}, X),
    "closure": closure,
    "written": written,
    "refused": refused,
    "nested": lambda b: jit(lambda p, x: grad(jit(loss, backend=b))(p, x), backend=b)(P, X),
    "method": lambda b: Bound(b).fast(P, X),
    "replayed": lambda b: jit(lambda p, x: grad(loss)(p, x), backend="replay")(P, X),
    "lowered": lambda b: jit(lambda p, x: grad(loss)(p, x), backend=b).lower(P, X).graph.code,
    "checked": lambda b: check(loss, P, X, backend=b),
}


def alive() -> dict[str, int]:
    """How many objects there are: nodes and graphs, all of Python's, and sources of generated code."""
    gc.collect()
    counts = Counter(type(one).__name__ for one in gc.get_objects())
    nodes = {kind: counts[kind] for kind in ("Node", "Graph", "Abstract", "Recording", "function", "Tensor")}
    return {**nodes, "all": counts.total(), "sources": len(linecache.cache) + len(_loader.eval_cache)}


def growth(f, times: int) -> dict[str, int]:
    """What more there is after some more calls, where it is as many as half the calls, and so each time.

    Tables of Python's, PyTorch's and functrain's grow now and then; what leaks grows with each call.
    """
    for _ in range(3):
        f()
    seen = [alive()]
    for _ in range(3):
        for _ in range(times):
            f()
        seen.append(alive())
    least = {kind: min(b[kind] - a[kind] for a, b in itertools.pairwise(seen)) for kind in seen[0]}
    return {kind: more for kind, more in least.items() if more >= times // 2}


@pytest.mark.filterwarnings("ignore:.torch.jit.script.:DeprecationWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_functions_go_with_all_that_was_traced(kind):
    assert growth(lambda: KINDS[kind]("aten"), times=17) == {}


def test_fits_go_with_all_that_was_traced():
    assert growth(lambda: fit("aten"), times=8) == {}


@pytest.mark.parametrize("kind", ["gradient", "scan", "donated"])
def test_functions_compiled_by_inductor_go_too(kind):
    """From the second of a kind on, nothing is compiled: what PyTorch keeps of a compilation is not measured."""
    assert growth(lambda: KINDS[kind]("inductor"), times=5) == {}


def test_what_is_kept_is_counted():
    """The counting itself: functions that are kept are seen to be there."""
    kept = []

    def keep():
        kept.append(jit(lambda p, x: grad(loss)(p, x)))
        kept[-1](P, X)

    assert {"Node", "Graph", "Abstract", "all"} <= growth(keep, times=6).keys()


def resident() -> float:
    """The process's resident memory in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the resident memory is read from /proc")
def test_memory_does_not_grow():
    """Of 25 gradients through 160 operations each: 57 MiB where graphs were kept, under 2.5 MiB over five runs."""

    def deep(p, x):
        for _ in range(40):
            x = torch.tanh(x @ p["w"] @ p["w"].t() + x)
        return x.sum()

    def trace():
        jit(lambda p, x: grad(deep)(p, x))(P, X)

    for _ in range(10):
        trace()
    gc.collect()
    before = resident()
    for _ in range(25):
        trace()
    gc.collect()
    assert resident() - before < 16


def test_no_source_goes_while_a_traceback_is_printed():
    """`linecache` goes through its cache by keys that it has listed before; the collector may come in between."""
    ft.jit(lambda x: x + 1)(torch.ones(1))
    before = {*linecache.cache}
    traced = trace(lambda x: [x * 3], [torch.ones(2)]).gm
    traced(torch.ones(2))  # which makes its code
    listed = [file for file in linecache.cache if file not in before]
    del traced
    gc.collect()
    assert listed and all(file in linecache.cache for file in listed)
    trace(lambda x: [x * 3], [torch.ones(2)])
    assert not any(file in linecache.cache for file in listed)
