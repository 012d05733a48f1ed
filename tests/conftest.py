"""What several test files share."""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import numpy
import pytest

WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if WORKERS > 1:  # before torch is imported, and for the processes that tests begin
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // WORKERS)))

import torch  # noqa: E402

from functrain.train.looping.compiling import DONATED_FROM  # noqa: E402

collect_ignore = ["typing/everyday.py", "typing/mistakes.py"]  # which are read by pyright; a test runs the one

MNIST = Path(__file__).resolve().parent.parent.parent / "shared" / "data" / "mnist"


@pytest.fixture(autouse=True)
def _global_draws() -> None:
    """Seed the global generators before each test, so that none depends on what another drew."""
    random.seed(0)
    torch.manual_seed(0)
    numpy.random.seed(0)


@pytest.fixture
def large() -> Iterator[None]:
    """Train as with a large state, whose memory compiled steps reuse."""
    before = DONATED_FROM.set(0)
    yield
    DONATED_FROM.reset(before)


@pytest.fixture(scope="session")
def mnist_folder() -> Path:
    """The folder of MNIST's four files; skips the test where it is missing."""
    if not (MNIST / "train-images-idx3-ubyte.gz").exists():
        pytest.skip(f"needs MNIST's four files in ../{MNIST.relative_to(MNIST.parents[2])} beside the repository")
    return MNIST


@pytest.fixture(scope="session")
def mnist_pair(mnist_folder):
    """The lesson's training and validation examples, read once: ArrayDatasets of pixels divided by 256."""
    from functrain import data

    return data.mnist(mnist_folder)
