"""A training step of a transformer encoder (4 layers of width 256, 8 rows of 128 tokens, AdamW), with dropout of 0.1.

Dropout is where BERT has it (Devlin et al., 2019): after the embedding, in the attention's weights and after each
branch. The entrants draw other masks, so the losses agree but roughly. The same without dropout shows what it costs.
"""

import math
from collections import OrderedDict
from functools import partial
from typing import Any

import torch
from torch import Tensor

import functrain as ft
from benchmarks.entrant import Entrant, Target
from benchmarks.workloads._device import DEVICE
from benchmarks.workloads._training import functrain_steps, module_steps
from functrain import losses, nn, optim

UNIT = (1e3, "ms")
TOLERANCE = 0.05
LAYERS, HEADS, WIDTH, CONTEXT, VOCABULARY, ROWS = 4, 4, 256, 128, 1000, 8
LR, COUNT = 1e-4, 5


def _heads(qkv: Tensor) -> Tensor:
    return qkv.unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)


def _weights(q: Tensor, k: Tensor) -> Tensor:
    return (q @ k.transpose(-1, -2) / math.sqrt(WIDTH // HEADS)).softmax(-1)


def _joined(heads: Tensor) -> Tensor:
    return heads.transpose(1, 2).flatten(2)


# In functrain.


def _attend(rate: float) -> nn.Model:
    drop = nn.dropout(rate)

    def init(key: Tensor, example: Any) -> tuple[nn.Params, nn.Buffers]:
        return {}, {}

    def apply(params: Any, buffers: Any, qkv: Tensor, mode: nn.Mode = nn.evaluation()) -> tuple[Tensor, Any]:  # noqa: B008
        q, k, v = _heads(qkv)
        weights, _ = drop.apply({}, {}, _weights(q, k), mode)
        return _joined(weights @ v), buffers

    return nn.Model(init, apply)


def _model(rate: float) -> nn.Model:
    attention = nn.serial(
        norm=nn.layer_norm(),
        qkv=nn.dense(3 * WIDTH),
        attend=_attend(rate),
        out=nn.dense(WIDTH),
        drop=nn.dropout(rate),
    )
    feed = nn.serial(
        norm=nn.layer_norm(), up=nn.dense(4 * WIDTH), gelu=nn.gelu, down=nn.dense(WIDTH), drop=nn.dropout(rate)
    )
    block = nn.serial(attention=nn.residual(attention), feed=nn.residual(feed))
    return nn.serial(
        embed=nn.embedding(VOCABULARY, WIDTH),
        drop=nn.dropout(rate),
        blocks=nn.repeat(LAYERS, block),
        norm=nn.layer_norm(),
        head=nn.dense(VOCABULARY),
    )


def _params() -> nn.Params:
    tokens = torch.zeros(1, CONTEXT, dtype=torch.int64)
    return ft.tree.to(_model(0.1).init(ft.random.key(0), tokens)[0], DEVICE)


def _batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randint(0, VOCABULARY, (ROWS, CONTEXT), generator=generator).to(DEVICE) for _ in range(2))


def _functrain(rate: float, backend: str) -> Entrant:
    learner = ft.Learner(_model(rate), losses.cross_entropy, optim.adamw(lr=LR))
    return functrain_steps(learner, _params(), _batch(), backend, COUNT)


# In PyTorch.


class _Attend(torch.nn.Module):
    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = torch.nn.Dropout(rate)

    def forward(self, qkv: Tensor) -> Tensor:
        q, k, v = _heads(qkv)
        return _joined(self.rate(_weights(q, k)) @ v)


class _Residual(torch.nn.Module):
    def __init__(self, **layers: torch.nn.Module) -> None:
        super().__init__()
        self.layer = torch.nn.Sequential(OrderedDict(layers))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layer(x)


def _block(rate: float) -> torch.nn.Module:
    linear, norm, drop = torch.nn.Linear, torch.nn.LayerNorm, torch.nn.Dropout
    attention = _Residual(
        norm=norm(WIDTH), qkv=linear(WIDTH, 3 * WIDTH), attend=_Attend(rate), out=linear(WIDTH, WIDTH), drop=drop(rate)
    )
    feed = _Residual(
        norm=norm(WIDTH),
        up=linear(WIDTH, 4 * WIDTH),
        gelu=torch.nn.GELU(),
        down=linear(4 * WIDTH, WIDTH),
        drop=drop(rate),
    )
    return torch.nn.Sequential(OrderedDict(attention=attention, feed=feed))


def _module(rate: float, **options: Any) -> Entrant:
    parts = {
        "embed": torch.nn.Embedding(VOCABULARY, WIDTH),
        "drop": torch.nn.Dropout(rate),
        "blocks": torch.nn.Sequential(*[_block(rate) for _ in range(LAYERS)]),
        "norm": torch.nn.LayerNorm(WIDTH),
        "head": torch.nn.Linear(WIDTH, VOCABULARY),
    }
    net = torch.nn.Sequential(OrderedDict(parts)).to(DEVICE)
    net.load_state_dict(nn.to_state_dict(_params(), {}))
    return module_steps(net, torch.optim.AdamW(net.parameters(), lr=LR, **options), _batch(), COUNT)


ENTRANTS = {
    "dropout: functrain, aten": partial(_functrain, 0.1, "aten"),
    "dropout: functrain, inductor": partial(_functrain, 0.1, "inductor"),
    "dropout: PyTorch, fused AdamW": partial(_module, 0.1, fused=True),
    "dropout: PyTorch, foreach AdamW": partial(_module, 0.1, foreach=True),
    "none: functrain, aten": partial(_functrain, 0.0, "aten"),
    "none: PyTorch, fused AdamW": partial(_module, 0.0, fused=True),
}

_PEERS = ("dropout: PyTorch, fused AdamW", "dropout: PyTorch, foreach AdamW")
TARGETS = [
    Target("dropout: functrain, aten", _PEERS, 1.0),
    Target("none: functrain, aten", "none: PyTorch, fused AdamW", 1.0),
]
