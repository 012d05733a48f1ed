"""Each law of `functrain.testing` can fail: a part that breaks it is told so by its name."""

import random as python_random

import attrs
import pytest
import torch

import functrain as ft
from functrain import data, losses, metrics, nn, optim, testing, tree
from functrain.data.sampler import Sampler
from functrain.errors import InvalidArgument, LawBroken
from functrain.metrics import Metric
from functrain.nn import Model

ROWS = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
CALLS = []


def refuses(law, reason, check, *args, **options):
    with pytest.raises(LawBroken, match=rf"(?s)^.* breaks the law '{law}': .*{reason}"):
        check(*args, **options)


# Functions


def counted(x):
    CALLS.append(1)
    return x + len(CALLS)


def reused(x, memory=torch.zeros(3)):  # noqa: B008
    return memory.add_(x[0])


@pytest.mark.parametrize(
    ("f", "reason"),
    [
        (lambda x: x.mul_(2), "argument 0 before and after the call differ"),
        (lambda x: x + torch.rand(1), "it draws from a global generator; draw with functrain.random"),
        (lambda x: x + python_random.random(), "it draws from a global generator"),
        (counted, "the results of two calls with the same arguments differ"),
        (reused, "the results? of .* differ"),
    ],
)
def test_functions_that_are_not_pure(f, reason):
    with pytest.raises(LawBroken, match=reason):
        testing.check_pure(f, ROWS.clone())


def test_numpy_generators_are_seen():
    numpy = pytest.importorskip("numpy")
    with pytest.raises(LawBroken, match="it draws from a global generator"):
        testing.check_pure(lambda x: x + float(numpy.random.rand()), ROWS)


def test_a_function_that_is_another_when_it_is_traced():
    with pytest.raises(LawBroken, match="eager against"):
        testing.check_jit(lambda x: x * two_if_traced(), ROWS)


def two_if_vmapped(x):
    return 2 if torch._C._functorch.maybe_get_level(x) > 0 else 3


def two_if_traced():
    return 2 if torch.compiler.is_compiling() else 3


def test_a_function_that_is_another_when_it_is_vmapped():
    with pytest.raises(LawBroken, match="a loop and vmap differ"):
        testing.check_vmap(lambda x: x * two_if_vmapped(x), ROWS)


# Layers


EVALUATION = nn.evaluation()


def stateless(apply, params=lambda key, x: {}):
    return Model(
        lambda key, x: (params(key, x), {}),
        lambda params, buffers, x, mode=EVALUATION: (apply(params, x, mode), buffers),
        label="mine",
    )


def with_buffer(new, start=lambda x: torch.zeros(x.shape[1])):
    def apply(params, buffers, x, mode=EVALUATION):
        return x, {"seen": new(buffers["seen"], x, mode)} if mode.train else buffers

    return Model(lambda key, x: ({}, {"seen": start(x)}), apply, label="mine")


def same(p, x, m):
    return x


LAYERS = {
    "init that draws": ("init", "global generator", stateless(same, lambda k, x: {"w": torch.rand(3)})),
    "init of numbers": (
        "init",
        "must be tensors, 0.w is a float",
        stateless(same, lambda k, x: {"w": 0.5}),
    ),
    "init by the key": (
        "init",
        "of two keys differ",
        stateless(same, lambda k, x: {"w": torch.ones(1 + int(k[0] % 97))}),
    ),
    "in place": ("evaluation", "argument 2 before and after", stateless(lambda p, x, m: x.add_(1))),
    "a draw of its own": ("training", "global generator", stateless(lambda p, x, m: torch.dropout(x, 0.5, m.train))),
    "a growing buffer": ("buffers", "before and after differ", with_buffer(lambda b, x, m: torch.cat([b, b]))),
    "a buffer of another dtype": ("buffers", "before and after differ", with_buffer(lambda b, x, m: b.double())),
    "mixed rows": ("rows", "row 0 alone and among the others differ", stateless(lambda p, x, m: x - x.mean(0))),
    "padding": ("padding", "in rows of zero weight differ", with_buffer(lambda b, x, m: x.mean(0))),
    "tracing": ("jit", "eager against", stateless(lambda p, x, m: x * two_if_traced())),
    "vmap": (
        "vmap",
        "vmapped differ",
        stateless(lambda p, x, m: x * p["w"] * two_if_vmapped(p["w"]), lambda k, x: {"w": torch.ones(3)}),
    ),
}


@pytest.mark.parametrize(("law", "reason", "layer"), LAYERS.values(), ids=LAYERS)
def test_layers(law, reason, layer):
    refuses(law, reason, testing.check_layer, layer, ROWS)
    assert law not in testing.check_layer(layer, ROWS, skip=[law, "jit", "training", "vmap"])


def test_a_layer_that_mixes_rows_on_purpose_skips_the_law_of_padding():
    testing.check_layer(with_buffer(lambda b, x, m: x.mean(0)), ROWS, skip=["padding"])


# Transforms


TRANSFORMS = {
    "a state that is the parameters": ("init", "shares its memory with the parameters", lambda p: p, None),
    "a state that is one tensor twice": ("init", "shares its memory", lambda p: [torch.ones(2)] * 2, None),
    "a state of numbers": ("init", "the state must be tensors, 0 is a float", lambda p: [0.5], None),
    "in place": ("update", "before and after", None, lambda u, s, p, c: (u, tree.map(lambda t: t.add_(1), s))),
    "a draw of its own": ("update", "global", None, lambda u, s, p, c: (tree.map(torch.rand_like, u), s)),
    "another dtype": (
        "structure",
        "parameters and updates",
        None,
        lambda u, s, p, c: (tree.map(torch.Tensor.double, u), s),
    ),
    "a growing state": (
        "structure",
        "the state before and after",
        lambda p: [torch.zeros(1)],
        lambda u, s, p, c: (u, [torch.cat([s[0], s[0]])]),
    ),
    "tracing": (
        "jit",
        "eager against",
        None,
        lambda u, s, p, c: (tree.map(lambda t: t * two_if_traced(), u), s),
    ),
    "a hidden memory": (
        "resume|identity|update",
        "",
        None,
        lambda u, s, p, c: (tree.map(lambda t: t * (CALLS.append(1) or len(CALLS)), u), s),
    ),
}


@pytest.mark.parametrize(("law", "reason", "init", "update"), TRANSFORMS.values(), ids=TRANSFORMS)
def test_transforms(law, reason, init, update):
    start = init or (lambda params: tree.map(torch.zeros_like, params))
    mine = optim.Transform(start, update or (lambda updates, state, params, context: (updates, state)))
    refuses(f"({law})", reason, testing.check_transform, mine)


def test_a_shortcut_that_is_another():
    mine = attrs.evolve(optim.sgd(0.1), fused=lambda updates, state, params, context: (params, state))
    refuses("fused", "`update` and then adding, and `fused`, differ", testing.check_transform, mine)


def test_a_transform_that_is_another_in_a_chain(monkeypatch):
    mine = optim.Transform(lambda params: (), lambda u, s, p, c: (tree.map(lambda t: t * len(CALLS), u), s))
    laws = testing.transform_laws(mine, {"w": torch.ones(2)}, ft.random.key(0))
    chain = optim.chain
    monkeypatch.setattr(optim, "chain", lambda *pieces: CALLS.append(1) or chain(*pieces))
    with pytest.raises(LawBroken, match="with and without `identity` differ"):
        laws["identity"]()


def test_a_state_that_does_not_come_back():
    mine = optim.Transform(lambda params: [], lambda u, s, p, c: (u, [*s, torch.ones(1)]))
    laws = testing.transform_laws(mine, {"w": torch.ones(2)}, ft.random.key(0))
    with pytest.raises(LawBroken, match="what was saved after 1 steps is of another structure"):
        laws["resume"]()
    kept = {}

    def remembers(updates, state, params, context):
        first = kept.setdefault("place", state["n"].data_ptr())  # what a resumed run has not
        return tree.map(lambda t: t * (2 if state["n"].data_ptr() == first else 1), updates), state

    mine = optim.Transform(lambda params: {"n": torch.zeros(1)}, remembers)
    laws = testing.transform_laws(mine, {"w": torch.ones(2)}, ft.random.key(0))
    with pytest.raises(LawBroken, match="uninterrupted and resumed at step 0 differ"):
        laws["resume"]()


# Losses, metrics and samplers

LOSSES = {
    "in place": ("pure", "argument 0", lambda p, t: p.sub_(t).square().mean(1)),
    "a mean": ("values", r"one value an example, shape \(4, ...\), got \(\)", lambda p, t: (p - t).square().mean()),
    "a number": ("values", "got float", lambda p, t: 0.5),
    "a mean of the batch": ("rows", "alone and among the others", lambda p, t: (p - p.mean(0)).square().mean(1)),
    "tracing": ("jit", "eager", lambda p, t: p.mean(1) * two_if_traced()),
    "infinite": ("gradient", "example 0 is not finite", lambda p, t: (p - p).abs().sqrt().sum(1)),
    "leaking": ("gradient", "has a gradient by another example", lambda p, t: p.mean(1) + (p - p.detach()).sum()),
}


@pytest.mark.parametrize(("law", "reason", "loss"), LOSSES.values(), ids=LOSSES)
def test_losses(law, reason, loss):
    skip = [] if law in ("pure", "values") else ["jit"] if law != "jit" else []
    refuses(law, reason, testing.check_loss, loss, ROWS.clone(), ROWS.flip(0), skip=skip)


GOOD = metrics.mean(losses.mse)


def one_seen(device=None):
    return tree.map(lambda t: t + 1, GOOD.init())


METRICS = {
    "in place": ("pure", "before and after", {"measure": lambda p, t: p.sub_(t).mean(1)}),
    "starts with one": (
        "identity",
        "the numbers differ",
        {"init": one_seen},
    ),
    "one side": ("merge|identity", "differ", {"merge": lambda a, b: a}),
    "mean of means": ("merge", "the numbers differ", {}),
    "no weight": ("weight", "with zero weight", {"add": lambda acc, values, weight=None: GOOD.add(acc, values)}),
    "NaN": ("weight", "with NaN of zero weight", {}),
}


def add_times(acc, values, weight=None):
    weight = torch.ones(len(values)) if weight is None else weight
    return {"total": acc["total"] + (values * weight).sum(), "n": acc["n"] + weight.sum()}


def nothing_seen(device=None):
    return {name: torch.zeros((), dtype=torch.float64) for name in ("total", "n")}


def sums(merge):
    measure = lambda p, t: (p - t).abs().mean(1).double()  # noqa: E731
    return Metric(nothing_seen, measure, add_times, merge, lambda acc: acc["total"] / acc["n"])


def added(a, b):
    return tree.map(torch.add, a, b)


def averaged(a, b):
    none = (a["n"] == 0) | (b["n"] == 0)
    return tree.map(lambda x, y: torch.where(none, x + y, (x + y) / 2 + x), a, b)


@pytest.mark.parametrize(("law", "reason", "changes"), METRICS.values(), ids=METRICS)
def test_metrics(law, reason, changes):
    metric = attrs.evolve(GOOD, **changes) if changes else sums(averaged if law == "merge" else added)
    refuses(f"({law})", reason, testing.check_metric, metric, ROWS.clone(), ROWS.flip(0))


def test_a_metric_that_is_another_when_it_is_traced():
    def add(acc, values, weight=None):
        return GOOD.add(acc, values * two_if_traced(), weight)

    refuses("jit", "eager", testing.check_metric, attrs.evolve(GOOD, add=add), ROWS, ROWS.flip(0))


def order(f):
    return Sampler(lambda key, n, epoch, start, stop: f(n, epoch, start, stop), 4)


SAMPLERS = {
    "a draw of its own": ("pure", "asked for in another order differ", lambda n, e, a, b: torch.randperm(n)[a:b]),
    "floats": ("range", "must be int64 of shape", lambda n, e, a, b: torch.arange(a, b).float()),
    "short": (
        "range",
        r"must be int64 of shape \(4,\), got torch.int64 of shape \(3,\)",
        lambda n, e, a, b: torch.arange(a, b - 1),
    ),
    "from 1": ("range", "an index that is not from 0 to 22", lambda n, e, a, b: torch.arange(a, b) + 1),
    "twice": ("once", "example 0 comes 2 times in epoch 0", lambda n, e, a, b: torch.arange(a, b) // 2 * 2),
    "by parts": ("reach", "in the whole and alone differ", lambda n, e, a, b: torch.arange(a, b).flip(0)),
    "later": (
        "once",
        "in epoch 1",
        lambda n, e, a, b: torch.arange(a, b) // (e + 1),
    ),
}


@pytest.mark.parametrize(("law", "reason", "f"), SAMPLERS.values(), ids=SAMPLERS)
def test_samplers(law, reason, f):
    refuses(law, reason, testing.check_sampler, order(f))


def test_a_sampler_that_drops_may_leave_out_but_not_repeat():
    twice = attrs.evolve(order(lambda n, e, a, b: torch.arange(a, b) // 2), remainder="drop")
    refuses("once", "example 0 comes 2 times", testing.check_sampler, twice)


# Skipping, and errors


def test_laws_that_there_are_not_cannot_be_skipped():
    with pytest.raises(InvalidArgument, match="skip: there is no law 'row'; the laws are pure, range, once, reach"):
        testing.check_sampler(data.sequential(4), skip=["row"])


def test_an_error_says_which_law_was_checked():
    def fails(prediction, target):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        testing.check_loss(fails, ROWS, ROWS)
    assert caught.value.__notes__ == ["while the law 'pure' of fails was checked"]
