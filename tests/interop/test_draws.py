"""Each function of PyTorch that draws: from the key alone, and with the distribution that PyTorch says."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch import nn as tnn

from functrain import nn, random
from functrain.errors import HiddenRandomness, InvalidKey
from functrain.nn.interop.rules.running import RULES

N = 20_000
QUARTERS = torch.tensor([0.75, 0.25])


class Does(tnn.Module):
    """A module that does what it is made with."""

    def __init__(self, f) -> None:
        super().__init__()
        self.f = f

    def forward(self, x: Tensor) -> Tensor:
        return self.f(x)


def drawn(f, x: Tensor | None = None, seed: int = 0) -> Tensor:
    x = torch.zeros(N) if x is None else x
    return nn.from_module(Does(f)).apply({}, {}, x, nn.training(random.key(seed)))[0]


# function of an input of N zeros -> mean and standard deviation of what it gives
MOMENTS = {
    "rand": (lambda x: torch.rand(N), 0.5, 12**-0.5),
    "rand of a size": (lambda x: torch.rand((N, 1), dtype=torch.float64), 0.5, 12**-0.5),
    "randn": (lambda x: torch.randn(N), 0.0, 1.0),
    "randn size=": (lambda x: torch.randn(size=(N,)), 0.0, 1.0),
    "rand_like": (torch.rand_like, 0.5, 12**-0.5),
    "randn_like": (torch.randn_like, 0.0, 1.0),
    "randn complex": (lambda x: torch.randn(N, dtype=torch.complex64).real, 0.0, 0.5**0.5),
    "randint": (lambda x: torch.randint(2, 8, (N,)), 4.5, (35 / 12) ** 0.5),
    "randint of one limit": (lambda x: torch.randint(6, (N,)), 2.5, (35 / 12) ** 0.5),
    "randint_like": (lambda x: torch.randint_like(x, 2, 8), 4.5, (35 / 12) ** 0.5),
    "normal of tensors": (lambda x: torch.normal(x + 3, x + 2), 3.0, 2.0),
    "normal of numbers": (lambda x: torch.normal(3.0, 2.0, (N,)), 3.0, 2.0),
    "bernoulli": (lambda x: torch.bernoulli(x + 0.3), 0.3, 0.21**0.5),
    "bernoulli p": (lambda x: torch.bernoulli(x, 0.3), 0.3, 0.21**0.5),
    "Tensor.bernoulli": (lambda x: (x + 0.3).bernoulli(), 0.3, 0.21**0.5),
    "bernoulli_": (lambda x: torch.empty(N).bernoulli_(0.3), 0.3, 0.21**0.5),
    "bernoulli_ of a tensor": (lambda x: torch.empty(N).bernoulli_(x + 0.3), 0.3, 0.21**0.5),
    "uniform_": (lambda x: x.new_empty(N).uniform_(-1, 3), 1.0, 4 * 12**-0.5),
    "normal_": (lambda x: torch.empty_like(x).normal_(3, 2), 3.0, 2.0),
    "exponential_": (lambda x: torch.empty_like(x).exponential_(2.0), 0.5, 0.5),
    "log_normal_": (lambda x: torch.empty_like(x).log_normal_(0.0, 0.5).log(), 0.0, 0.5),
    "geometric_": (lambda x: torch.empty_like(x).geometric_(0.25), 4.0, 12**0.5),
    "cauchy_": (lambda x: (torch.empty_like(x).cauchy_(1.0, 2.0) > 1).float(), 0.5, 0.5),
    "random_": (lambda x: torch.empty_like(x).random_(2, 8), 4.5, (35 / 12) ** 0.5),
    "random_ of one limit": (lambda x: torch.empty_like(x).random_(6), 2.5, (35 / 12) ** 0.5),
    "multinomial": (lambda x: torch.multinomial(QUARTERS, N, True), 0.25, (3 / 16) ** 0.5),
    "Normal": (lambda x: torch.distributions.Normal(x + 3, x + 2).rsample(), 3.0, 2.0),
    "Normal.sample": (lambda x: torch.distributions.Normal(x + 3, x + 2).sample(), 3.0, 2.0),
    "Laplace": (lambda x: torch.distributions.Laplace(x + 3, x + 2).rsample(), 3.0, 8**0.5),
    "Exponential": (lambda x: torch.distributions.Exponential(x + 2).rsample(), 0.5, 0.5),
    "Categorical": (lambda x: torch.distributions.Categorical(QUARTERS).sample((N,)), 0.25, (3 / 16) ** 0.5),
    "init.normal_": (lambda x: tnn.init.normal_(torch.empty(N), 3.0, 2.0), 3.0, 2.0),
    "init.kaiming_uniform_": (lambda x: tnn.init.kaiming_uniform_(torch.empty(200, 100), a=5**0.5), 0.0, 0.1 / 3**0.5),
    "init.trunc_normal_": (lambda x: tnn.init.trunc_normal_(torch.empty(N)), 0.0, 0.8796),
    "rrelu": (lambda x: F.rrelu(x - 1, training=True), -(1 / 8 + 1 / 3) / 2, (1 / 3 - 1 / 8) * 12**-0.5),
    "gumbel_softmax": (lambda x: F.gumbel_softmax(torch.zeros(N, 2), hard=True)[:, 0], 0.5, 0.5),
    "dropout": (lambda x: F.dropout(x + 1, 0.2), 1.0, 0.5),
    "dropout in place": (lambda x: F.dropout(x + 1, 0.2, inplace=True), 1.0, 0.5),
    "dropout2d": (lambda x: F.dropout2d(torch.ones(200, 100, 2, 2), 0.2)[:, :, 1, 0], 1.0, 0.5),
    "alpha_dropout": (lambda x: F.alpha_dropout(torch.randn(N), 0.2, training=True), 0.0, 1.0),
    "feature_alpha_dropout": (lambda x: F.feature_alpha_dropout(torch.randn(200, 100), 0.2, training=True), 0.0, 1.0),
    "native_dropout": (lambda x: torch.native_dropout(x + 1, 0.2, True)[0], 1.0, 0.5),
}  # fmt: skip


@pytest.mark.parametrize("name", MOMENTS)
def test_draws_come_from_the_key_and_have_their_distribution(name):
    f, mean, deviation = MOMENTS[name]
    state = torch.get_rng_state()
    y, again, other = drawn(f), drawn(f), drawn(f, seed=1)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(y, again)
    assert not torch.equal(y, other)
    values = y.double()
    # Six standard errors of the mean; the deviation within 5%, which all of these hold by a factor of two.
    assert abs(values.mean() - mean) < 6 * deviation / values.numel() ** 0.5
    assert abs(values.std() / deviation - 1) < 0.05


def test_permutations_and_draws_without_replacement_hold_each_once():
    assert drawn(lambda x: torch.randperm(100)).sort().values.tolist() == list(range(100))
    chosen = drawn(lambda x: torch.multinomial(torch.ones(50, 9), 9))
    assert (chosen.sort(1).values == torch.arange(9)).all()
    never = drawn(lambda x: torch.multinomial(torch.tensor([0.5, 0.0, 0.5]), 2))
    assert sorted(never.tolist()) == [0, 2]


def test_what_dropout_keeps_is_scaled_and_what_it_drops_is_zero():
    x = torch.randn(50, 40)
    y = drawn(lambda x: F.dropout(x, 0.25), x)
    assert torch.allclose(y, torch.where(y == 0, y, x / 0.75))
    z = drawn(lambda x: F.dropout2d(x, 0.25), torch.ones(30, 20, 3, 3))
    assert ((z == 0) == (z[:, :, :1, :1] == 0)).all()
    for p, expected in ((0.0, x), (1.0, x * 0)):
        assert torch.equal(drawn(lambda x, p=p: F.dropout(x, p), x), expected)


def test_attention_with_dropout_is_attention_when_nothing_drops():
    q, k = torch.randn(2, 4, 6, 8), torch.randn(2, 2, 6, 8)
    mask = torch.rand(6, 6) > 0.3
    mask[2] = False  # a query that may attend to nothing
    for options in ({}, {"is_causal": True}, {"attn_mask": mask}, {"attn_mask": torch.randn(6, 6)}, {"scale": 0.2}):
        own = F.scaled_dot_product_attention(q, k, k, enable_gqa=True, **options)
        f = lambda x, o=options: F.scaled_dot_product_attention(x, k, k, dropout_p=1e-9, enable_gqa=True, **o)  # noqa: E731
        assert torch.allclose(drawn(f, q), own, atol=1e-6)


def test_attention_drops_as_many_weights_as_it_says():
    q = torch.zeros(1, 1, 100, 8)
    weights = drawn(lambda x: F.scaled_dot_product_attention(x, x, torch.eye(100)[None, None], dropout_p=0.3), q)
    assert abs((weights == 0).double().mean() - 0.3) < 6 * (0.21 / 10_000) ** 0.5


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_layer_by_layer_a_recurrent_network_is_itself_when_nothing_drops(kind):
    net = getattr(tnn, kind)(5, 4, 3, bidirectional=True, dropout=1e-9)
    packed = tnn.utils.rnn.pack_padded_sequence(torch.randn(6, 3, 5), [6, 4, 2])
    for x in (torch.randn(6, 3, 5), packed):
        model = nn.from_module(net, unpack=False)
        params, buffers = model.init(random.key(0), x)
        y, _ = model.apply(params, buffers, x, nn.training(random.key(1)))
        own = net(x)
        got, expected = (y[0], own[0]) if x is not packed else (y[0].data, own[0].data)
        assert torch.allclose(got, expected, atol=1e-6)
        for mine, its in zip(*(h if isinstance(h, tuple) else (h,) for h in (y[1], own[1])), strict=True):
            assert torch.allclose(mine, its, atol=1e-6)


def test_factories_are_written_to_under_a_vmap_over_keys():
    makers = [
        lambda x: torch.empty(3).normal_(),
        lambda x: torch.zeros(3).uniform_(),
        lambda x: torch.ones_like(x).bernoulli_(0.5),
        lambda x: x.new_full((3,), 2.0).exponential_(),
    ]
    for make in makers:
        model = nn.from_module(Does(make))
        keys = random.split(random.key(0), 4)
        f = lambda key, m=model: m.apply({}, {}, torch.zeros(3), nn.training(key))[0]  # noqa: E731
        assert torch.equal(torch.func.vmap(f)(keys), torch.stack([f(key) for key in keys]))


REFUSED = {
    "a generator of its own": (lambda x: torch.rand(3, generator=torch.Generator()), "torch.Generator of its own"),
    "a generator in place": (
        lambda x: torch.empty(3).normal_(generator=torch.Generator()),
        "torch.Generator of its own",
    ),
    "poisson": (lambda x: torch.poisson(x + 1), "torch.poisson, for which functrain.random has no draw"),
    "gamma": (lambda x: torch.distributions.Gamma(x + 1, x + 1).rsample(), "torch._standard_gamma"),
    "manual_seed": (lambda x: (torch.manual_seed(1), x)[1], "draws from, or seeds, PyTorch's global generator"),
    "Python": (lambda x: x * __import__("random").random(), "Python's module random"),
    "NumPy": (lambda x: x * __import__("numpy").random.rand(), "NumPy's global generator"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_draws_that_no_key_reproduces_are_refused_and_states_put_back(name):
    f, words = REFUSED[name]
    state = torch.get_rng_state()
    with pytest.raises(HiddenRandomness, match=words):
        drawn(f)
    assert torch.equal(state, torch.get_rng_state())


def test_a_draw_without_a_key_says_where():
    model = nn.from_module(tnn.Sequential(tnn.Linear(3, 3), Does(torch.randn_like)))
    params, buffers = model.init(random.key(0), torch.zeros(1, 3))
    with pytest.raises(InvalidKey, match="in layer 1: from_module: 1 draws random numbers"):
        model.apply(params, buffers, torch.zeros(1, 3))
    with pytest.raises(InvalidKey, match="in training, which needs a key"):
        model.apply(params, buffers, torch.zeros(1, 3), nn.Mode(train=True))
    y, _ = model.apply(params, buffers, torch.zeros(1, 3), nn.Mode(key=random.key(0)))
    assert y.any()


UNANSWERED = {
    "random": "torch.random is a module",
    "rrelu_with_noise": "F.rrelu and torch.rrelu are answered; nothing in PyTorch calls this one from Python",
    "miopen_rnn": "what torch.lstm calls on other devices",
}


def test_every_operation_that_draws_is_answered_under_its_name():
    """PyTorch tags the operations that draw. Private ones (`_flash_...`) are left to the look at the generators."""
    operations = [name for name in torch._C._dispatch_get_all_op_names() if name.startswith("aten::")]
    drawing = {n.partition(".")[0][6:] for n in operations if torch.Tag.nondeterministic_seeded in _tags(n)}
    assert "dropout" in drawing
    missing = [
        name
        for name in sorted(drawing - set(UNANSWERED))
        if not name.startswith("_")
        for place in (torch, torch.Tensor, torch._C._nn)
        if hasattr(place, name) and getattr(place, name) not in RULES
    ]
    assert missing == []


def _tags(name: str):
    packet, _, overload = name.removeprefix("aten::").partition(".")
    return getattr(getattr(torch.ops.aten, packet), overload or "default").tags
