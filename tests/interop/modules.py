"""Modules that keep things in unusual places, or draw in unusual ways."""

import functools

import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import Tensor
from torch import nn as tnn


class Bound(tnn.Module):
    """Stores a bound method, a partial of one, and submodules in a list and in a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = tnn.Linear(4, 4), tnn.Linear(4, 4)
        self.stored = self.through
        self.scaled = functools.partial(self.through, scale=2.0)
        self.steps = [self.b.forward, torch.tanh]
        self.table = {"layers": [self.a]}

    def through(self, x: Tensor, scale: float = 1.0) -> Tensor:
        return self.a(x) * scale

    def forward(self, x: Tensor) -> Tensor:
        return self.steps[0](self.stored(x)) + self.scaled(x) + self.table["layers"][0](x)


class Closure(tnn.Module):
    """Stores a function that closes over the module itself."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = tnn.Linear(4, 4)
        self.f = lambda x: self.linear(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.f(x)


class Helper:
    """No module, but it holds one."""

    def __init__(self, module: tnn.Module) -> None:
        self.module = module


class ByHelper(tnn.Module):
    """Calls a submodule by way of an object that is no module."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = tnn.Linear(4, 4)
        self.helper = Helper(self.linear)

    def forward(self, x: Tensor) -> Tensor:
        return self.helper.module(x)


class Keeps(tnn.Module):
    """Keeps a tensor on itself, and uses it at the next call, as a cache does."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = tnn.Parameter(torch.randn(4))
        self.cache: dict[str, Tensor] = {}
        self.calls: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        if "scale" not in self.cache:
            self.cache["scale"] = self.scale * 2
        self.calls.append(1)
        return x * self.cache["scale"] * len(self.calls)


class CachesAtRest(tnn.Module):
    """Computes from its parameters when it is put in evaluation, as LeViT does."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = tnn.Parameter(torch.randn(4))

    @torch.no_grad()
    def train(self, mode: bool = True):
        super().train(mode)
        if mode:
            vars(self).pop("cached", None)
        else:
            self.cached = self.bias * 3
        return self

    def forward(self, x: Tensor) -> Tensor:
        return x + (self.bias * 3 if self.training else self.cached)


class Shared(tnn.Module):
    """Holds one submodule under two names, and calls it and a batch norm twice."""

    def __init__(self) -> None:
        super().__init__()
        self.a = tnn.Linear(4, 4)
        self.b = self.a
        self.norm, self.drop = tnn.BatchNorm1d(4), tnn.Dropout(0.3)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.drop(self.b(self.norm(self.drop(self.a(x))))))


class Average(tnn.Module):
    """Moves a buffer in place by way of `.data`, and counts in one that is not saved."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = tnn.Linear(4, 4)
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        if self.training:
            self.mean.data.mul_(0.9).add_(y.detach().mean(0), alpha=0.1)
            self.count += 1
        return y - self.mean


class Checkpointed(tnn.Module):
    """Runs parts of itself by `torch.utils.checkpoint`, a batch norm and dropout among them."""

    def __init__(self, reentrant: bool = False, active: bool = True) -> None:
        super().__init__()
        parts = tnn.Linear(4, 8), tnn.BatchNorm1d(8), tnn.Dropout(0.3), tnn.Tanh(), tnn.Linear(8, 4)
        self.body, self.first, self.drop = tnn.Sequential(*parts), tnn.Linear(4, 4), tnn.Dropout(0.2)
        self.reentrant, self.active = reentrant, active

    def run(self, f, x: Tensor) -> Tensor:
        return torch.utils.checkpoint.checkpoint(f, x, use_reentrant=self.reentrant) if self.active else f(x)

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(self.run(self.body, self.drop(self.first(x))))
        x = self.run(lambda x: self.body(self.drop(x)), x)
        return x + self.run(functools.partial(self.body), x)


class Samples(tnn.Module):
    """Draws by distributions and by factories."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.decode = tnn.Linear(4, 8), tnn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        mean, spread = self.encode(x).chunk(2, -1)
        z = torch.distributions.Normal(mean, F.softplus(spread), validate_args=False).rsample()
        z = z * F.gumbel_softmax(z, tau=1.0) + torch.randn_like(z) * 0.1 + torch.rand(4)
        kept = x.new_empty((x.shape[0], 1)).bernoulli_(0.5)
        return self.decode(z * kept.div_(0.5))[:, torch.randperm(4)]


class FrozenNorm(tnn.Module):
    """Has a batch norm in evaluation and a layer that is not trained."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.fixed = tnn.Linear(4, 4), tnn.BatchNorm1d(4), tnn.Linear(4, 4)
        self.norm.eval()
        self.fixed.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.fixed(self.norm(self.a(x)))


class Tied(tnn.Module):
    """Has one weight under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = tnn.Embedding(7, 4), tnn.Linear(4, 7, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.embed(x))


class Autocast(tnn.Module):
    """Computes in half precision inside."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = tnn.Linear(4, 4), tnn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.b(torch.relu(self.a(x))).float()


class Block(tnn.Module):
    """A block of a small ResNet."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = tnn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm, self.act = tnn.BatchNorm2d(channels), tnn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(x + self.norm(self.conv(x)))


def resnet() -> tnn.Module:
    stem = tnn.Conv2d(1, 8, 3), tnn.BatchNorm2d(8), tnn.ReLU(inplace=True)
    head = tnn.AdaptiveAvgPool2d(1), tnn.Flatten(), tnn.Dropout(0.2), tnn.Linear(8, 3)
    return tnn.Sequential(*stem, Block(8), Block(8), *head)


class UNet(tnn.Module):
    """Two levels with a skip."""

    def __init__(self) -> None:
        super().__init__()
        self.down = tnn.Sequential(tnn.Conv2d(1, 6, 3, padding=1), tnn.GroupNorm(2, 6), tnn.SiLU())
        self.middle = tnn.Sequential(tnn.Conv2d(6, 6, 3, stride=2, padding=1), tnn.Dropout2d(0.2), tnn.SiLU())
        self.up = tnn.ConvTranspose2d(6, 6, 2, stride=2)
        self.out = tnn.Conv2d(12, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        level = self.down(x)
        return self.out(torch.cat([level, self.up(self.middle(level))], 1))


class Attends(tnn.Module):
    """Attention of a sequence to itself, and PyTorch's own function with dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = tnn.MultiheadAttention(8, 2, dropout=0.2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.attention(x, x, x)[0]
        return y + F.scaled_dot_product_attention(x, y, x, dropout_p=0.3 if self.training else 0.0, is_causal=True)


class Recurrent(tnn.Module):
    """Both directions, several layers, and dropout between them."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = tnn.LSTM(5, 2, 3, dropout=0.3, bidirectional=True, batch_first=True)
        self.gru, self.rnn = tnn.GRU(4, 5, 2, dropout=0.2), tnn.RNN(5, 4, 2, dropout=0.2, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        return self.rnn(self.gru(self.lstm(x)[0])[0])[0]
