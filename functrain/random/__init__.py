"""Randomness without a hidden state: keys are values, and a draw is a pure function of a key and a shape.

A key is an int64 tensor of two 32-bit words. `key` makes one from a seed, `split` and `fold_in` derive others from it,
and each draw (`uniform`, `normal`, `permutation`...) takes one. The same key gives the same bits wherever the draw
runs: at once, under `torch.func.vmap` (one key a row), traced by `make_fx`, and on every device. (Functions such as the
logarithm in `normal` may differ between devices and compilers in their last bit; the random bits under them do not.)

>>> params, noise = split(key(0))
>>> uniform(params, (3,))
tensor([0.9104, 0.3262, 0.9092])

Use a key once, for one draw or one `split`; use `fold_in` for as many keys as there are steps, layers or examples.
`check_keys` finds keys that are used twice.

The generator is Philox4x32-10 (Salmon et al., SC 2011). A key enters it as its key; the four words of the counter hold

    word 0, word 2    the number of the block in a draw, the number of the key in a split, or the number folded in
    word 1            0, or half a hash of the names folded in
    word 3            the domain in its 4 highest bits: 1 for `fold_in`, 2 for `split`, 3 for draws; below, the rest of
                      that hash, or the number of the stream: 0, and 1 for what few draws need besides

so what is drawn from a key and what is derived from it never come from the same block.

Element 4 * i + j of a draw is made of word j of block i. Of a draw that needs two words an element (those of float64,
`randint` and `permutation`), element 2 * i + j is made of words 2 * j and 2 * j + 1; of one that needs half a word
(`bernoulli` and `dropout_mask`), elements 8 * i + 2 * j and the next of the lower and the higher half of word j. So an
element depends on the key and its place alone, and the draw of a shape begins with that of a shorter one.
"""

from functrain.random.choices import categorical, permutation, randint
from functrain.random.draws import bits, normal, truncated_normal, uniform
from functrain.random.keys import check_key, fold_in, key, split
from functrain.random.masks import bernoulli, dropout_mask
from functrain.random.reuse import check_keys

__all__ = [
    "bernoulli",
    "bits",
    "categorical",
    "check_key",
    "check_keys",
    "dropout_mask",
    "fold_in",
    "key",
    "normal",
    "permutation",
    "randint",
    "split",
    "truncated_normal",
    "uniform",
]


def __dir__() -> list[str]:
    return __all__
