"""Recurrent networks of torch.nn under `vmap`: over keys, over parameters and over inputs, equal to a loop."""

import pytest
import torch
from torch import nn as tnn

import functrain as ft
from functrain import nn, random, tree
from functrain.errors import InvalidArgument

KINDS = {
    "lstm": lambda p: tnn.LSTM(3, 4, 2, dropout=p, bidirectional=True, batch_first=True),
    "lstm projected": lambda p: tnn.LSTM(3, 4, 2, dropout=p, proj_size=2, bias=False),
    "gru": lambda p: tnn.GRU(3, 4, 2, dropout=p, bidirectional=True),
    "gru without bias": lambda p: tnn.GRU(3, 4, bias=False, batch_first=True),
    "tanh": lambda p: tnn.RNN(3, 4, 3, dropout=p),
    "relu": lambda p: tnn.RNN(3, 4, 2, nonlinearity="relu", dropout=p, batch_first=True),
}
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")

X = random.normal(random.key(1), (5, 2, 3))
ROWS = 3


def model_of(kind, p):
    torch.manual_seed(0)
    model = nn.from_module(KINDS[kind](p))
    return model, model.init(random.key(0), X)[0]


def loss(model, params, x, key=None):
    y, _ = model.apply(params, {}, x, nn.evaluation() if key is None else nn.training(key))
    return sum((t**2).mean() for t in tree.leaves(y))


def compare(mapped, one, rows):
    expected = [one(*row) for row in rows]
    torch.testing.assert_close(mapped, tree.stack(expected), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_over_keys_with_dropout_between_layers(kind):
    model, params = model_of(kind, 0.0 if "without" in kind else 0.4)
    f = ft.value_and_grad(lambda params, key: loss(model, params, X, key))
    keys = random.split(random.key(2), ROWS)
    compare(ft.vmap(f, in_dims=(None, 0))(params, keys), f, [(params, key) for key in keys])


@pytest.mark.parametrize("kind", KINDS)
def test_over_stacked_parameters(kind):
    model, params = model_of(kind, 0.0)
    several = [tree.map(lambda p: p * (1 + 0.1 * i), params) for i in range(ROWS)]  # noqa: B023
    f = ft.value_and_grad(lambda params: loss(model, params, X))
    compare(ft.vmap(f)(tree.stack(several)), f, [(one,) for one in several])


@pytest.mark.parametrize("kind", KINDS)
def test_over_inputs_of_one_more_axis(kind):
    model, params = model_of(kind, 0.0)
    several = random.normal(random.key(3), (ROWS, *X.shape))
    f = ft.value_and_grad(lambda x: loss(model, params, x))
    compare(ft.vmap(f)(several), f, [(x,) for x in several])


def test_compiled():
    model, params = model_of("lstm", 0.4)
    keys = random.split(random.key(2), ROWS)
    f = ft.vmap(ft.value_and_grad(lambda params, key: loss(model, params, X, key)), in_dims=(None, 0))
    torch.testing.assert_close(ft.jit(f)(params, keys), f(params, keys), rtol=1e-5, atol=1e-6)


class Packed(tnn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = tnn.LSTM(3, 4)

    def forward(self, x):
        packed = tnn.utils.rnn.pack_padded_sequence(x, torch.tensor([5, 3]))
        return self.lstm(packed)[0].data


def test_a_packed_sequence_under_vmap_is_refused():
    model = nn.from_module(Packed())
    params, _ = model.init(random.key(0), X)
    with pytest.raises(InvalidArgument, match=r"lstm runs a packed sequence under vmap.*pad the sequences"):
        ft.vmap(lambda params: model.apply(params, {}, X)[0])(tree.stack([params, params]))
