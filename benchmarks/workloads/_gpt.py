"""GPT-2 (Radford et al., 2019) in functrain, in PyTorch and in JAX, with parameters of the same names.

functrain's is a composition: a block is two residuals of serial layers, and the model a serial of blocks whose output
is compared with the embedded tokens.
"""

from collections import OrderedDict
from functools import partial
from typing import Any

import attrs
import torch
import torch.nn.functional as F
from toolz import get_in
from torch import Tensor

import functrain as ft
from benchmarks.entrant import Entrant
from benchmarks.workloads._device import DEVICE, jax_modules
from benchmarks.workloads._training import arrays_of, functrain_steps, jax_steps, module_steps
from functrain import initializers, losses, nn, optim

LR, WEIGHT_DECAY, STD = 1e-3, 1e-2, 0.02
TOKENS = ("embed", "token", "weight")
"""Where the table of the tokens is, which is also the last layer's weight."""

EVALUATION = nn.evaluation()


@attrs.frozen
class Config:
    """The size of a GPT, and of the batches that it is trained on."""

    layers: int
    heads: int
    width: int
    context: int
    vocabulary: int
    batch: int


# In functrain.


def model(config: Config) -> nn.Model:
    """Return a GPT: tokens (n, context) -> logits (n, context, vocabulary)."""
    width = config.width
    draw = initializers.normal(STD)
    last = initializers.normal(STD / (2 * config.layers) ** 0.5)  # what a residual adds starts small
    attention = nn.serial(
        norm=nn.layer_norm(),
        qkv=nn.dense(3 * width, weight=draw),
        attend=partial(attend, heads=config.heads),
        out=nn.dense(width, weight=last),
    )
    feed_forward = nn.serial(
        norm=nn.layer_norm(),
        up=nn.dense(4 * width, weight=draw),
        gelu=nn.gelu_tanh,
        down=nn.dense(width, weight=last),
    )
    positions = nn.serial(number=numbered, table=nn.embedding(config.context, width, weight=draw))
    body = nn.serial(
        embed=nn.parallel(token=nn.embedding(config.vocabulary, width, weight=draw), position=positions, combine=added),
        blocks=nn.repeat(config.layers, nn.serial(attention=nn.residual(attention), feed=nn.residual(feed_forward))),
        norm=nn.layer_norm(),
    )
    return tied(body, TOKENS)


def attend(qkv: Tensor, heads: int) -> Tensor:
    """Return causal attention of queries, keys and values (n, context, 3 * width), each cut into heads."""
    q, k, v = qkv.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)


def numbered(tokens: Tensor) -> Tensor:
    """Return the positions 0, 1, ... of a row of tokens."""
    return torch.arange(tokens.shape[1], device=tokens.device)


def added(outputs: list[Tensor]) -> Tensor:
    """Return the sum of embedded tokens and embedded positions, the same for each row."""
    tokens, positions = outputs
    return tokens + positions


def tied(body: nn.Model, path: tuple[str, ...]) -> nn.Model:
    """Return the model whose logits are the products of the body's output with the rows of one of its parameters."""

    def apply(params: nn.Params, buffers: nn.Buffers, x: Any, mode: nn.Mode = EVALUATION) -> tuple[Tensor, nn.Buffers]:
        hidden, buffers = body.apply(params, buffers, x, mode)
        return F.linear(hidden, get_in(path, params)), buffers

    return attrs.evolve(body, apply=apply)


def in_autocast(layer: nn.Model, dtype: torch.dtype) -> nn.Model:
    """Return the model computed in mixed precision: parameters stay as they are, matrix products are in `dtype`."""

    def apply(params: nn.Params, buffers: nn.Buffers, x: Any, mode: nn.Mode = EVALUATION) -> tuple[Any, nn.Buffers]:
        with torch.autocast(DEVICE.type, dtype, cache_enabled=False):
            return layer.apply(params, buffers, x, mode)

    return attrs.evolve(layer, apply=apply)


def params_of(config: Config) -> nn.Params:
    """Return the parameters that every entrant begins with, the same in every process."""
    params, _ = model(config).init(ft.random.key(0), torch.zeros(1, config.context, dtype=torch.int64))
    return ft.tree.to(params, DEVICE)


def batch_of(config: Config) -> tuple[Tensor, Tensor]:
    """Return tokens and the tokens that follow them."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, config.vocabulary, (config.batch, config.context + 1), generator=generator).to(DEVICE)
    return tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()


def functrain_entrant(config: Config, backend: str, count: int, dtype: torch.dtype | None = None) -> Entrant:
    """Return functrain's entrant; with a dtype, in mixed precision."""
    layer = model(config) if dtype is None else in_autocast(model(config), dtype)
    learner = ft.Learner(layer, losses.cross_entropy, optim.adamw(lr=LR, weight_decay=WEIGHT_DECAY))
    return functrain_steps(learner, params_of(config), batch_of(config), backend, count)


# In PyTorch.


class Attend(torch.nn.Module):
    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads

    def forward(self, qkv: Tensor) -> Tensor:
        return attend(qkv, self.heads)


class Residual(torch.nn.Module):
    def __init__(self, **layers: torch.nn.Module) -> None:
        super().__init__()
        self.layer = torch.nn.Sequential(OrderedDict(layers))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layer(x)


class Embed(torch.nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.token = torch.nn.Embedding(config.vocabulary, config.width)
        self.position = torch.nn.ModuleDict({"table": torch.nn.Embedding(config.context, config.width)})

    def forward(self, tokens: Tensor) -> Tensor:
        return self.token(tokens) + self.position["table"](numbered(tokens))


class GPT(torch.nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.embed = Embed(config)
        self.blocks = torch.nn.Sequential(*[self._block(config) for _ in range(config.layers)])
        self.norm = torch.nn.LayerNorm(config.width)

    @staticmethod
    def _block(config: Config) -> torch.nn.Module:
        width, linear, norm = config.width, torch.nn.Linear, torch.nn.LayerNorm
        attention = Residual(
            norm=norm(width), qkv=linear(width, 3 * width), attend=Attend(config.heads), out=linear(width, width)
        )
        feed = Residual(
            norm=norm(width),
            up=linear(width, 4 * width),
            gelu=torch.nn.GELU(approximate="tanh"),
            down=linear(4 * width, width),
        )
        return torch.nn.Sequential(OrderedDict(attention=attention, feed=feed))

    def forward(self, tokens: Tensor) -> Tensor:
        return F.linear(self.norm(self.blocks(self.embed(tokens))), self.embed.token.weight)


def module_entrant(config: Config, compiled: bool, count: int, dtype: torch.dtype | None = None) -> Entrant:
    """Return PyTorch's entrant: a module, and AdamW in one fused kernel."""
    net = GPT(config).to(DEVICE)
    net.load_state_dict(nn.to_state_dict(params_of(config), {}))
    optimizer = torch.optim.AdamW(net.parameters(), lr=LR, weight_decay=WEIGHT_DECAY, fused=True)
    return module_steps(net, optimizer, batch_of(config), count, compiled, dtype)


# In JAX.


def jax_entrant(config: Config, count: int) -> Entrant:
    """Return JAX's entrant, with optax."""
    jax, jnp, _ = jax_modules()

    def dense(params: Any, x: Any) -> Any:
        return x @ params["weight"].T + params["bias"]

    def norm(params: Any, x: Any) -> Any:
        x = x - x.mean(-1, keepdims=True)
        return x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + 1e-5) * params["weight"] + params["bias"]

    def attention(params: Any, x: Any) -> Any:
        qkv = dense(params["qkv"], norm(params["norm"], x))
        q, k, v = jnp.moveaxis(qkv.reshape(*x.shape[:2], 3, config.heads, -1), 2, 0)
        return dense(params["out"], jax.nn.dot_product_attention(q, k, v, is_causal=True).reshape(x.shape))

    def feed(params: Any, x: Any) -> Any:
        return dense(params["down"], jax.nn.gelu(dense(params["up"], norm(params["norm"], x)), approximate=True))

    def apply(params: Any, tokens: Any) -> Any:
        table = get_in(TOKENS, params)
        x = table[tokens] + params["embed"]["position"]["table"]["weight"][: tokens.shape[1]]
        for i in range(config.layers):
            block = params["blocks"][str(i)]
            x = x + attention(block["attention"]["layer"], x)
            x = x + feed(block["feed"]["layer"], x)
        return norm(params["norm"], x) @ table.T

    def adamw(optax: Any) -> Any:
        return optax.adamw(LR, weight_decay=WEIGHT_DECAY)

    return jax_steps(apply, arrays_of(params_of(config)), adamw, arrays_of(batch_of(config)), count)
