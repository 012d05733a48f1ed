"""What several test files share."""

from pathlib import Path

import pytest

collect_ignore = ["typing/everyday.py", "typing/mistakes.py"]  # which are read by pyright; a test runs the one

MNIST = Path(__file__).resolve().parent.parent.parent / "shared" / "data" / "mnist"


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
