"""What the workloads with the lesson's model share: its data, its first parameters and its permutations."""

import math

import torch

ROWS, BATCH, LR = 50_000, 64, 0.1


def arrays() -> tuple[torch.Tensor, torch.Tensor]:
    """Return inputs (50,000, 784) and labels that a small network can learn, the same in every process."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(ROWS, 784, generator=generator)
    labels = (inputs @ torch.randn(784, 10, generator=generator)).argmax(1)
    return inputs, labels


def first_params() -> dict[str, dict[str, torch.Tensor]]:
    """Return the parameters that every entrant begins with, keyed like an nn.Sequential's."""
    generator = torch.Generator().manual_seed(1)

    def uniform(*shape: int) -> torch.Tensor:
        return (2 * torch.rand(shape, generator=generator) - 1) / math.sqrt(shape[-1])

    return {"0": {"weight": uniform(50, 784), "bias": torch.zeros(50)}, "2": {"weight": uniform(10, 50), "bias": torch.zeros(10)}}


def module() -> torch.nn.Module:
    """Return the same model as an nn.Sequential."""
    net = torch.nn.Sequential(torch.nn.Linear(784, 50), torch.nn.ReLU(), torch.nn.Linear(50, 10))
    net.load_state_dict({f"{i}.{name}": value for i, layer in first_params().items() for name, value in layer.items()})
    return net
