"""The digits of scikit-learn: 1,797 handwritten digits of 8 x 8 pixels, which come with it and need no download."""

import torch

from functrain import random
from functrain.data.dataset import ArrayDataset
from functrain.errors import MissingExtra

TRAINING_ROWS = 1_500


def digits(flat: bool = True) -> tuple[ArrayDataset, ArrayDataset]:
    """Return scikit-learn's digits, 1,500 to train on and 297 to validate on, always the same ones.

    They are the test set of E. Alpaydin and C. Kaynak, "Optical recognition of handwritten digits" (UCI, 1998), in a
    random order of a fixed key: as they lie, they go writer by writer.

    Args:
        flat: whether an input is a vector of 64 numbers; otherwise it has shape (1, 8, 8).

    Returns:
        A pair of `ArrayDataset`s (train, valid): inputs float32 in [0, 1] (the pixels, 0 to 16, divided by 16), targets
        int64, 0 to 9.

    Raises:
        MissingExtra: scikit-learn is not installed.

    >>> train, valid = digits()
    >>> train, valid
    (ArrayDataset(1,500 rows of (float32(64,), int64())), ArrayDataset(297 rows of (float32(64,), int64())))
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingExtra(
            "data.digits() reads scikit-learn's digits; install it with `pip install functrain[examples]`"
        ) from error
    pixels, labels = load_digits(return_X_y=True)
    order = random.permutation(random.key(0), len(labels))
    inputs = (torch.as_tensor(pixels) / 16).float()[order]
    targets = torch.as_tensor(labels).long()[order]
    inputs = inputs if flat else inputs.view(-1, 1, 8, 8)
    parts = slice(None, TRAINING_ROWS), slice(TRAINING_ROWS, None)
    train, valid = (ArrayDataset((inputs[part], targets[part])) for part in parts)
    return train, valid
