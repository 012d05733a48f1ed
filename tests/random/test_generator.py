"""The generator: known answers, and the same blocks in every way of making them."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.fx.experimental.proxy_tensor import make_fx

from functrain import random
from functrain.random import workspace
from functrain.random.philox import MASK, blocks, blocks_in_place, round_keys, words_of_block, words_of_blocks
from functrain.random.words import DRAW
from functrain.random.workspace import with_blocks
from tests.random.draws import DRAWS_OF_A_SHAPE

# The known answers of the reference implementation, Random123's kat_vectors.
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((MASK,) * 4, (MASK,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]

word = st.integers(0, MASK)
words4 = st.tuples(word, word, word, word)
words2 = st.tuples(word, word)


def by_tensors(counter, key):
    c0, c1, c2, c3 = counter
    even, odd = blocks(torch.tensor(key), torch.tensor([c0, c2]), torch.tensor([c1, c3]))
    (w0, w2), (w1, w3) = even.tolist(), (odd & MASK).tolist()
    return w0, w1, w2, w3


def in_place(key, start, domain, n):
    words, spare = torch.full((4, n), -1), torch.full((2, n), -1)
    blocks_in_place(round_keys(torch.tensor(key)), start, domain, words, spare)
    return [tuple(column) for column in words[[0, 2, 1, 3]].T.tolist()]


# The generator


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_the_known_answers(counter, key, answer):
    assert words_of_block(counter, key) == answer
    assert by_tensors(counter, key) == answer


def test_the_first_known_answer_in_place():
    assert in_place((0, 0), 0, 0, 1) == [KNOWN[0][2]]


@given(words4, words2)
@settings(max_examples=30, deadline=None)
def test_integers_and_tensors_give_the_same_blocks(counter, key):
    assert words_of_block(counter, key) == by_tensors(counter, key)


@given(words2, st.integers(0, 2**62), word, st.integers(1, 5))
@settings(max_examples=30, deadline=None)
def test_blocks_in_place_are_those_of_their_counters(key, start, domain, n):
    wanted = [words_of_block((i & MASK, 0, i >> 32, domain), key) for i in range(start, start + n)]
    assert in_place(key, start, domain, n) == wanted


@given(words2, word, st.integers(0, 70))
@settings(max_examples=30, deadline=None)
def test_wide_integers_give_the_same_blocks(key, domain, n):
    made = words_of_blocks(n, domain, key)
    assert made.shape == (n, 4) and made.dtype is torch.int64
    assert [tuple(block) for block in made.tolist()] == [words_of_block((i, 0, 0, domain), key) for i in range(n)]


def in_a_workspace(n, domain, key):
    made = with_blocks(n, domain, key, lambda made: made.words.to(torch.int64) & MASK)
    return [tuple(block) for block in made.view(n, 4).tolist()]


@given(words2, word, st.integers(1, 40))
@settings(max_examples=30, deadline=None)
def test_a_workspace_gives_the_same_blocks(key, domain, n):
    wanted = [words_of_block((i, 0, 0, domain), key) for i in range(n)]
    assert in_a_workspace(n, domain, key) == wanted == in_a_workspace(n, domain, key)


def test_no_two_draws_share_a_workspace():
    alone, inside = in_a_workspace(9, DRAW, (1, 2)), []

    def disturbed(made):
        before = made.words.clone()
        inside.append(in_a_workspace(9, DRAW, (3, 4)))  # as from the handler of a signal
        return torch.equal(before, made.words)

    assert with_blocks(9, DRAW, (1, 2), disturbed)
    assert inside == [in_a_workspace(9, DRAW, (3, 4))] and inside[0] != alone
    with ThreadPoolExecutor(4) as threads:
        assert set(map(tuple, threads.map(lambda _: in_a_workspace(300, DRAW, (1, 2))[:9], range(200)))) == {
            tuple(alone)
        }


def test_a_workspace_made_in_inference_mode_serves_outside_of_it():
    with torch.inference_mode():
        first = in_a_workspace(77, DRAW, (1, 2))
    assert in_a_workspace(77, DRAW, (1, 2)) == first


def test_workspaces_of_many_sizes_are_not_all_kept():
    for n in range(3000, 3030):
        in_a_workspace(n, DRAW, (1, 2))
    assert sum(workspace._free) <= workspace._MOST


def test_the_number_of_a_block_goes_on_past_32_bits():
    around = in_place((1, 2), 2**32 - 2, DRAW, 4)
    assert around == [words_of_block((i & MASK, 0, i >> 32, DRAW), (1, 2)) for i in range(2**32 - 2, 2**32 + 2)]
    assert around[2] != in_place((1, 2), 0, DRAW, 1)[0]


# What the stream of a key is: these values may never change


def test_golden_values():
    key = random.key(2**64 - 3)
    assert key.tolist() == [MASK - 2, MASK]
    assert random.bits(key, 3).tolist() == [464230211, 527024313, 334356619]
    assert random.split(key, 1).tolist() == [[3669935125, 175019808]]
    assert random.fold_in(key, 7).tolist() == [1385317675, 3500076664]
    assert random.fold_in(key, "layer", "0").tolist() == [3073741868, 4110551483]
    assert random.key(-1).tolist() == [3929560863, 3858795376]


def test_a_draw_is_the_words_of_its_blocks():
    key = random.key(3)
    made = [words_of_block((i, 0, 0, DRAW), (3, 0)) for i in range(3)]
    assert random.bits(key, 10).tolist() == [word for block in made for word in block][:10]


# An element depends on the key and its place alone


@pytest.mark.parametrize("name", DRAWS_OF_A_SHAPE)
@pytest.mark.parametrize("traced", [False, True])
def test_a_draw_begins_with_a_shorter_one(name, traced):
    f, key = DRAWS_OF_A_SHAPE[name], random.key(21)

    def draw(rows):
        run = (lambda key: f(key, (rows, 5))) if not traced else make_fx(lambda key: f(key, (rows, 5)))(key)
        return run(key)

    # Rows of 5 end within a block; 4000 words are more than Python's integers make, 70,000 more than a chunk.
    longest = draw(14_003)
    assert all(torch.equal(draw(rows), longest[:rows]) for rows in (1, 3, 7, 800, 14_001))
    assert longest[::2].unique().numel() > 1 and not torch.equal(longest[:7], longest[7:14])
