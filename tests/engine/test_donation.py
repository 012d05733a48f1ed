"""Donation: the memory of an argument is used for the result, and nobody ever reads a wrong number because of it."""

import copy
import gc
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from functrain import tree
from functrain.engine import jit
from functrain.engine.calling.donation import Donated
from functrain.errors import DonatedValueUsed

UNARY = [
    lambda x: x,
    lambda x: 2 * x,
    lambda x: x + 1,
    torch.neg,
    torch.sin,
    lambda x: x.flip(0),
    lambda x: x.t() if x.dim() == 2 and x.shape[0] == x.shape[1] else x.clone(),
    lambda x: x.reshape(-1).reshape(x.shape),
    lambda x: x.detach(),
    lambda x: x * x,
    lambda x: x.double().to(x.dtype),
]
BINARY = [
    torch.add,
    torch.sub,
    torch.mul,
    lambda a, b: a + 0.5 * b,
    lambda a, b: torch.where(a > 0, a, b),
    torch.maximum,
]
SHAPES = [(2,), (2, 2), (3, 3), ()]


@st.composite
def programs(draw):
    """A random state, with leaves that may share memory, and a random program over it."""
    n = draw(st.integers(1, 5))
    shape = draw(st.sampled_from(SHAPES))
    sharing = [draw(st.sampled_from(["own", "own", "same", "view", "flat", "transposed"])) for _ in range(n)]
    steps = [
        (draw(st.integers(0, len(UNARY) + len(BINARY) - 1)), draw(st.integers(0, 30)), draw(st.integers(0, 30)))
        for _ in range(draw(st.integers(0, 8)))
    ]
    results = [draw(st.integers(0, 30)) for _ in range(draw(st.integers(1, n + 1)))]
    return n, shape, sharing, steps, results, draw(st.integers(0, 1000)), draw(st.booleans())


def make_leaves(n, shape, sharing, seed):
    generator = torch.Generator().manual_seed(seed)
    leaves = [torch.randn(shape, generator=generator)]
    for k in range(1, n):
        how, other = sharing[k], leaves[k // 2]
        if how == "same":
            leaves.append(other)
        elif how == "view":
            leaves.append(other.view(other.shape))
        elif how == "transposed" and other.dim() == 2:
            leaves.append(other.t())
        elif how == "flat":
            leaves.append(torch.randn((2, *shape), generator=generator)[1])
        else:
            leaves.append(torch.randn(shape, generator=generator))
    return leaves


def run_program(steps, results, values):
    values = list(values)
    for op, i, j in steps:
        a, b = values[i % len(values)], values[j % len(values)]
        values.append(UNARY[op](a) if op < len(UNARY) else BINARY[op - len(UNARY)](a, b))
    return {f"r{k}": values[-1 - (r % len(values))] for k, r in enumerate(results)}


@settings(max_examples=150, deadline=None)
@given(programs())
def test_a_donating_function_gives_what_the_plain_one_gives(program):
    n, shape, sharing, steps, results, seed, also = program

    def f(state, other):
        return run_program(steps, results, [*state.values(), other])

    leaves = make_leaves(n, shape, sharing, seed)
    other = leaves[0] if also else torch.ones(shape)
    state = {f"l{k}": leaf for k, leaf in enumerate(leaves)}
    kept = other.clone()
    expected = f(tree.map(torch.clone, state), other.clone())
    compiled = jit(f, donate=0)
    got = compiled(state, other)
    assert not tree.differences(expected, got, rtol=1e-6, atol=1e-6)
    assert torch.equal(other, kept)
    again = {f"l{k}": got.get(f"r{k}", torch.full(shape, float(k))) for k in range(n)}
    values = tree.map(torch.clone, again)
    expected = f(values, other.clone())
    assert not tree.differences(expected, compiled(again, other), rtol=1e-6, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(programs())
def test_tensors_that_were_not_donated_keep_their_values(program):
    n, shape, sharing, steps, results, seed, _ = program
    leaves = make_leaves(n, shape, sharing, seed)
    # Every second leaf is donated; the others, which may share memory with those, must not change.
    donated = {f"l{k}": leaf for k, leaf in enumerate(leaves) if k % 2 == 0}
    kept = {f"l{k}": leaf for k, leaf in enumerate(leaves) if k % 2 == 1}
    before = tree.map(torch.clone, kept)

    def f(donated, kept):
        return run_program(steps, results, [*donated.values(), *kept.values()])

    expected = f(tree.map(torch.clone, donated), before)
    got = jit(f, donate=0)(donated, kept)
    assert not tree.differences(expected, got, rtol=1e-6, atol=1e-6)
    assert tree.equal(before, kept)


def step(state, x):
    return {"w": state["w"] - 0.1 * x, "n": state["n"] + 1}, x.sum()


@pytest.fixture
def state():
    return {"w": torch.ones(3), "n": torch.tensor(0)}


def test_the_result_is_in_the_old_memory(state):
    at = state["w"].data_ptr()
    new, _ = jit(step, donate=0)(state, torch.ones(3))
    assert new["w"].data_ptr() == at
    assert type(new["w"]) is torch.Tensor


def test_steps_keep_the_same_memory_and_do_not_grow():
    f = jit(step, donate="state")
    state = {"w": torch.ones(3), "n": torch.tensor(0)}
    at = state["w"].data_ptr()
    for _ in range(5):
        state, _ = f(state, torch.ones(3))
    assert state["w"].data_ptr() == at
    assert len(f.traces) == 1
    assert torch.allclose(state["w"], torch.full((3,), 0.5))
    assert state["n"] == 5


@pytest.mark.parametrize(
    "use",
    [
        lambda t: t + 1,
        lambda t: 1 + t,
        lambda t: t.shape,
        lambda t: t.sum(),
        lambda t: t[0],
        lambda t: t.numpy(),
        lambda t: t.tolist(),
        lambda t: len(t),
        lambda t: torch.stack([t, t]),
        lambda t: torch.ones(3).add_(t),
        lambda t: t.data_ptr(),
        lambda t: copy.deepcopy(t),
        lambda t: pickle.dumps(t),
        lambda t: bool(t),
        lambda t: t.requires_grad_(),
        lambda t: torch.nn.functional.linear(t, torch.ones(3, 3)),
        lambda t: torch.func.vmap(torch.sin)(t),
        lambda t: torch.ops.aten.sin.default(t),
    ],
)
def test_using_a_donated_tensor_raises_and_names_it(state, use):
    jit(step, donate=0)(state, torch.ones(3))
    with pytest.raises(DonatedValueUsed, match=r"state\.w was donated to step.*go on with the value"):
        use(state["w"])


def test_a_donated_tensor_can_still_be_shown(state):
    jit(step, donate=0)(state, torch.ones(3))
    assert repr(state["w"]) == "<state.w was donated to step>"


def test_passing_a_donated_tensor_again_raises_and_names_both_places(state):
    f = jit(step, donate=0)
    f(state, torch.ones(3))
    with pytest.raises(DonatedValueUsed, match=r"state\.w: state\.w was donated to step"):
        f(state, torch.ones(3))
    with pytest.raises(DonatedValueUsed, match=r"x: state\.w was donated"):
        f({"w": torch.ones(3), "n": torch.tensor(0)}, state["w"])


def test_a_leaf_without_a_matching_result_is_donated_all_the_same(state):
    jit(lambda state: state["w"][:1] * 2, donate=0)(state)
    with pytest.raises(DonatedValueUsed):
        state["w"] + 1
    with pytest.raises(DonatedValueUsed):
        state["n"] + 1


def test_exchanged_leaves_exchange_their_values():
    a, b = torch.zeros(2), torch.ones(2)
    new = jit(lambda s: (s[1], s[0]), donate=0)((a, b))
    assert new[0].tolist() == [1, 1]
    assert new[1].tolist() == [0, 0]


def test_a_view_held_by_somebody_else_keeps_its_values():
    w = torch.ones(3)
    view = w.view(3, 1)
    new = jit(lambda w: w * 2, donate=0)(w)
    assert view.flatten().tolist() == [1, 1, 1]
    assert new.tolist() == [2, 2, 2]


def test_a_tensor_that_is_closed_over_and_donated_is_read_before_it_changes():
    w = torch.ones(2)
    new = jit(lambda p: (p + 1) * w, donate=0)(w)
    assert new.tolist() == [2, 2]


def test_one_tensor_donated_and_kept_stays_usable():
    w = torch.ones(2)
    new = jit(lambda a, b: a + b, donate=0)(w, w)
    assert new.tolist() == [2, 2]
    assert w.tolist() == [1, 1]


def test_what_differs_in_every_call_is_never_donated(state):
    f = jit(step, donate=0)
    x = torch.ones(3)
    state, _ = f(state, x)
    f(state, x)
    assert x.tolist() == [1, 1, 1]


def test_a_state_that_is_kept_does_not_grow_into_the_next(state):
    f = jit(step, donate=0)
    first = f(state, torch.ones(3))[0]  # `state`, donated, stays alive and holds the memory
    second = f(first, torch.ones(3))[0]
    assert torch.allclose(second["w"], torch.full((3,), 0.8))


def test_a_call_that_fails_before_it_writes_leaves_the_state_usable():
    f = jit(lambda s, i: s.index_select(0, i) + 1, donate=0)
    s = torch.arange(3.0)
    f(s.clone(), torch.tensor([0, 1, 2]))
    with pytest.raises((IndexError, RuntimeError)):
        f(s, torch.tensor([0, 1, 7]))
    assert s.tolist() == [0, 1, 2]


def test_a_call_that_fails_after_it_wrote_says_that_the_state_is_lost():
    def g(s, i):
        new = {"a": s["a"] * 2, "b": (s["b"] * 2).index_select(0, i)}
        return new

    f = jit(g, donate=0)
    good = {"a": torch.ones(40_000), "b": torch.ones(3)}
    f(good, torch.tensor([0, 1, 2]))
    bad = {"a": torch.ones(40_000), "b": torch.ones(3)}
    with pytest.raises((IndexError, RuntimeError)):
        f(bad, torch.tensor([0, 1, 9]))
    with pytest.raises(DonatedValueUsed, match="whose call then failed"):
        bad["a"].sum()


def test_memory_is_not_kept_by_the_chain_of_states():
    gc.collect()
    before = {id(o) for o in gc.get_objects() if issubclass(type(o), Donated)}  # a test that failed may keep some
    f = jit(lambda s: s + 1, donate=0)
    s = torch.zeros(4)
    for _ in range(50):
        s = f(s)
    gc.collect()
    assert {id(o) for o in gc.get_objects() if issubclass(type(o), Donated)} <= before
    assert s._base is None


@pytest.mark.parametrize("view", [lambda t: t[::2], lambda t: t.t(), lambda t: t[:1].expand(5, 3), lambda t: t[1]])
def test_a_donated_view_that_is_returned_unchanged_is_that_view(view):
    base = torch.arange(12.0).view(4, 3)
    given = view(base)
    at, strides, expected = given.data_ptr(), given.stride(), given.clone()
    f = jit(lambda v, x: (v, x + 1), donate=0)
    for _ in range(2):
        given, _ = f(given, torch.ones(2))
        assert (given.data_ptr(), given.stride()) == (at, strides)
        assert torch.equal(given, expected)
    assert base.flatten().tolist() == list(range(12))
    assert len(f.traces) == 1


@pytest.mark.parametrize("view", [lambda t: t[1], lambda t: t.t(), lambda t: t.view(3, 4)])
def test_a_donated_view_that_is_changed_is_changed_in_a_copy_of_its_strides(view):
    base = torch.arange(12.0).view(4, 3)
    given = view(base)
    expected, strides = given * 2, given.stride()
    new = jit(lambda v: v * 2, donate=0)(given)
    assert torch.equal(new, expected)
    assert new.stride() == strides
    assert base.flatten().tolist() == list(range(12))
    with pytest.raises(DonatedValueUsed):
        given + 1
