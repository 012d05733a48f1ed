"""Data: datasets, samplers and the loader that makes batches of them, from any epoch and step on."""

from functrain.data.batch import Batch, as_batch, first_tensor
from functrain.data.bunch import Bunch, loaders, one_batch
from functrain.data.collate import Padded, pad, stack
from functrain.data.dataset import ArrayDataset, Dataset, MappedDataset, example, gather, map_input
from functrain.data.idx import read_idx
from functrain.data.loading import Loader, batches, index_block, is_resident, loader, may_refill, yields_views
from functrain.data.mnist_files import mnist, mnist_test
from functrain.data.normalize import Normalizer, fit_normalizer
from functrain.data.sampler import Sampler, indices, pads, sequential, shuffled, steps_per_epoch
from functrain.data.sklearn_digits import digits

__all__ = [
    "ArrayDataset",
    "Batch",
    "Bunch",
    "Dataset",
    "Loader",
    "MappedDataset",
    "Normalizer",
    "Padded",
    "Sampler",
    "as_batch",
    "batches",
    "digits",
    "example",
    "first_tensor",
    "fit_normalizer",
    "gather",
    "index_block",
    "indices",
    "is_resident",
    "loader",
    "loaders",
    "map_input",
    "may_refill",
    "mnist",
    "mnist_test",
    "one_batch",
    "pad",
    "pads",
    "read_idx",
    "sequential",
    "shuffled",
    "stack",
    "steps_per_epoch",
    "yields_views",
]


def __dir__() -> list[str]:
    return __all__
