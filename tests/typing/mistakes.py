"""Mistakes that a type checker finds before anything runs; never imported.

Each line is wrong, and says so: pyright reports a comment of this file that hides no error.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=true

import torch

import functrain as ft
from functrain import data, losses, nn, optim, schedule

ft.Learner(torch.nn.Linear(3, 2), losses.mse, optim.adam())  # pyright: ignore[reportArgumentType]
ft.Learner(nn.dense(2), losses.mse, torch.optim.Adam)  # pyright: ignore[reportArgumentType]
ft.Learner(nn.dense(2), losses.mse)  # pyright: ignore[reportCallIssue]
optim.sgd(lr="0.1")  # pyright: ignore[reportArgumentType]
schedule.join([1.0], [0.1])  # pyright: ignore[reportArgumentType]
nn.dense("50")  # pyright: ignore[reportArgumentType]
weight = nn.dense(2).weight  # pyright: ignore[reportAttributeAccessIssue]
data.shuffled(batch_size=64.0)  # pyright: ignore[reportArgumentType]
ft.random.key("0")  # pyright: ignore[reportArgumentType]
ft.jit(lambda x: x, bakend="aten")  # pyright: ignore[reportCallIssue]


def double(x: torch.Tensor) -> torch.Tensor:
    """Return twice the tensor."""
    return 2 * x


ft.jit(double)(1)  # pyright: ignore[reportArgumentType]
ft.jit(double)()  # pyright: ignore[reportCallIssue]
ft.grad(double)()  # pyright: ignore[reportCallIssue]
ft.Run(None).state = 1  # pyright: ignore[reportAttributeAccessIssue]
