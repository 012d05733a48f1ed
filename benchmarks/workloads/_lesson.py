"""What the workloads with the lesson's model share: its data and its first parameters."""

import math

import torch

from benchmarks.workloads._device import DEVICE

ROWS, BATCH, LR = 50_000, 64, 0.1


def arrays(rows: int = ROWS) -> tuple[torch.Tensor, torch.Tensor]:
    """Return inputs (rows, 784) and labels that a small network can learn, the same in every process."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(rows, 784, generator=generator)
    labels = (inputs @ torch.randn(784, 10, generator=generator)).argmax(1)
    return inputs.to(DEVICE), labels.to(DEVICE)


def first_params() -> dict[str, dict[str, torch.Tensor]]:
    """Return the parameters that every entrant begins with, keyed like an nn.Sequential's."""
    generator = torch.Generator().manual_seed(1)

    def uniform(*shape: int) -> torch.Tensor:
        return ((2 * torch.rand(shape, generator=generator) - 1) / math.sqrt(shape[-1])).to(DEVICE)

    def zeros(count: int) -> torch.Tensor:
        return torch.zeros(count, device=DEVICE)

    return {"0": {"weight": uniform(50, 784), "bias": zeros(50)}, "2": {"weight": uniform(10, 50), "bias": zeros(10)}}


def module() -> torch.nn.Module:
    """Return the same model as an nn.Sequential."""
    net = torch.nn.Sequential(torch.nn.Linear(784, 50), torch.nn.ReLU(), torch.nn.Linear(50, 10))
    net.load_state_dict({f"{i}.{name}": value for i, layer in first_params().items() for name, value in layer.items()})
    return net.to(DEVICE)
