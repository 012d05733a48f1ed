"""One tensor passed twice, and tensors that share memory: each pattern is a signature, traced once, and right."""

import itertools

import pytest
import torch

from functrain.engine import jit
from functrain.errors import DonatedValueUsed

SHARED = torch.randn(3, 3, generator=torch.Generator().manual_seed(7))


def mixed(a, b, c):
    """Write to clones, read all, and return views and arguments too."""
    d = a.clone()
    d.mul_(2).add_(b)
    e = c.clone()
    e[1:] = d[1:] - a[1:]
    return {"d": d, "e": e, "b": b, "t": d.t(), "same": torch.tensor(float(a is b) + 2 * (b is c)), "s": SHARED + a}


def fresh(seed=0):
    return torch.randn(3, 3, generator=torch.Generator().manual_seed(seed))


def overlapping():
    memory = torch.randn(12, generator=torch.Generator().manual_seed(3))
    return memory[:9].view(3, 3), memory[3:].view(3, 3), fresh()


def viewed():
    x = fresh()
    return x, x.view(3, 3), x.t()


def same(pattern):
    def make():
        distinct = [fresh(k) for k in range(3)]
        return tuple(distinct[k] for k in pattern)

    return make


PATTERNS = [same(p) for p in ((0, 1, 2), (0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 0, 0))] + [
    overlapping,
    viewed,
    lambda: (SHARED, fresh(), SHARED),
    lambda: (fresh(), SHARED, SHARED.view(3, 3)),
    lambda: (SHARED.t(), fresh(), SHARED[:]),
]


DONATED = [(), (0,), (1,), (0, 1), (0, 1, 2)]
# Not those where a tensor that the function closes over is donated, which would be lost to the next call.
CASES = [(m, d) for m in PATTERNS for d in DONATED if all(m()[k] is not SHARED for k in d)]


@pytest.mark.parametrize(("make", "donate"), CASES)
def test_every_pattern_is_right_at_each_call_and_traced_once(make, donate):
    f, before = jit(mixed, donate=donate), SHARED.clone()
    for _ in range(3):
        arguments = make()
        expected = {k: (t.clone(), t.stride()) for k, t in mixed(*arguments).items()}
        kept = [t.clone() for t in arguments]
        ours = f(*arguments)
        assert all(torch.equal(ours[k], value) for k, (value, _) in expected.items())
        assert all(ours[k].stride() == stride for k, (_, stride) in expected.items())
        for k, (argument, value) in enumerate(zip(arguments, kept, strict=True)):
            if type(argument) is torch.Tensor:  # not donated: what somebody else holds too is as it was
                assert torch.equal(argument, value)
            else:
                assert k in donate
        assert torch.equal(SHARED, before)
    assert len(f.traces) == 1


def test_one_function_called_in_every_pattern_chooses_the_right_trace():
    f = jit(mixed)
    for make in (*PATTERNS, *PATTERNS[::-1]):
        arguments = make()
        expected, ours = mixed(*arguments), f(*arguments)
        assert all(torch.equal(ours[k], expected[k]) for k in expected)
    assert len(f.traces) == 7  # five patterns, and two with other strides
    assert any("became the same as a" in trace.reason for trace in f.traces)


def test_the_second_call_with_one_tensor_passed_twice_takes_the_quick_path(monkeypatch):
    f = jit(lambda x, y: x * 2 + y)
    x = torch.ones(3)
    f(x, x)
    monkeypatch.setattr(f, "_unusual", lambda args, kwargs: pytest.fail("the slow path"))
    assert f(x, x).tolist() == [3, 3, 3]


def test_the_second_call_that_donates_a_tensor_at_two_places_takes_the_quick_path(monkeypatch):
    f = jit(lambda p, q: (p * 2, q + 1), donate=(0, 1))
    p = torch.ones(3)
    f(p, p)
    monkeypatch.setattr(f, "_unusual", lambda args, kwargs: pytest.fail("the slow path"))
    again = torch.ones(3)
    assert [t.tolist() for t in f(again, again)] == [[2, 2, 2], [2, 2, 2]]
    with pytest.raises(DonatedValueUsed, match="p was donated"):
        again + 1


def test_a_tensor_donated_here_and_kept_there_stays_usable_and_is_traced_once():
    f = jit(lambda p, q, x: (p * 2, q + x), donate=0)
    for _ in range(3):
        p = torch.ones(3)
        doubled, summed = f(p, p, torch.ones(3))
        assert doubled.tolist() == [2, 2, 2] == summed.tolist()
        assert p.tolist() == [1, 1, 1]
    assert len(f.traces) == 1


def test_leaves_of_one_tree_that_are_one_tensor_are_a_signature():
    f = jit(lambda tree, **more: {k: v + more["x"] for k, v in tree.items()})
    tied, x = torch.ones(2), torch.full((2,), 2.0)
    for tree, extra in itertools.product(({"a": tied, "b": tied}, {"a": tied, "b": torch.ones(2)}), (x, tied)):
        for _ in range(2):
            assert {k: v.tolist() for k, v in f(tree, x=extra).items()} == dict.fromkeys("ab", (tied + extra).tolist())
    assert len(f.traces) == 4


def test_a_function_that_is_kept_costs_nothing_new_where_it_is_called_from_elsewhere():
    scale = torch.tensor(2.0)
    f = jit(lambda state, batch: {k: v - scale * batch[0] for k, v in state.items()})

    def evaluate(state):
        x = torch.ones(3)
        return f(state, (x, x))

    def fit(state):
        x = torch.zeros(3)
        return f(state, (x, x))

    for _ in range(2):
        assert fit({"w": torch.ones(3)})["w"].tolist() == [1, 1, 1]
        assert evaluate({"w": torch.ones(3)})["w"].tolist() == [-1, -1, -1]
    assert len(f.traces) == 1
