"""PyTorch's modules in training and evaluation, for the search of `tests.conformance.schemas`."""

import itertools
import warnings
from collections.abc import Callable

import torch
from torch import nn

from tests.conformance.schemas import Watch
from tests.conformance.schemas_calls import FORMS, attempt
from tests.conformance.schemas_training import prepared, try_lists, try_named

randn = torch.randn


def convolutions() -> list[tuple[Callable[[], nn.Module], tuple]]:
    x1, x2, x3 = randn(2, 4, 9), randn(2, 4, 9, 9), randn(2, 4, 5, 5, 5)
    norms = [lambda: nn.BatchNorm2d(4), lambda: nn.BatchNorm2d(4, track_running_stats=False)]
    norms += [lambda: nn.BatchNorm2d(4, affine=False), lambda: nn.BatchNorm2d(4, momentum=None)]
    norms += [lambda: nn.InstanceNorm2d(4), lambda: nn.InstanceNorm2d(4, affine=True, track_running_stats=True)]
    norms += [
        lambda: nn.GroupNorm(2, 4),
        lambda: nn.LayerNorm(9),
        lambda: nn.RMSNorm(9),
        lambda: nn.LocalResponseNorm(2),
    ]
    spatial = [lambda: nn.Conv2d(4, 6, 3), lambda: nn.Conv2d(4, 4, 3, groups=4, padding=1), lambda: nn.Conv2d(4, 8, 1)]
    spatial += [lambda: nn.Conv2d(4, 8, 3, stride=2, padding="valid", dilation=2), lambda: nn.ConvTranspose2d(4, 2, 3)]
    spatial += [lambda: nn.Conv2d(4, 4, 3, padding="same", padding_mode="reflect"), lambda: nn.Dropout2d(), nn.Dropout]
    spatial += [lambda: nn.MaxPool2d(2), lambda: nn.AvgPool2d(2), lambda: nn.AdaptiveAvgPool2d(1), nn.Flatten]
    spatial += [lambda: nn.AdaptiveAvgPool2d(3), lambda: nn.AdaptiveMaxPool2d(2), lambda: nn.LPPool2d(2, 2)]
    spatial += [lambda: nn.Upsample(scale_factor=2), lambda: nn.Upsample(scale_factor=2, mode="bilinear")]
    spatial += [lambda: nn.PixelShuffle(2), lambda: nn.ZeroPad2d(1), lambda: nn.ReflectionPad2d(1), nn.Softmax2d]
    spatial += [lambda: nn.FractionalMaxPool2d(2, output_size=3), lambda: nn.Unfold(3), lambda: nn.ChannelShuffle(2)]
    flat = [
        lambda: nn.Conv1d(4, 6, 3),
        lambda: nn.BatchNorm1d(4),
        lambda: nn.MaxPool1d(2),
        lambda: nn.ConvTranspose1d(4, 2, 3),
    ]
    solid = [lambda: nn.Conv3d(4, 2, 3), lambda: nn.BatchNorm3d(4), lambda: nn.MaxPool3d(2), lambda: nn.AvgPool3d(2)]
    both = [(make, (x2,)) for make in norms + spatial]
    return both + [(make, (x1,)) for make in flat] + [(make, (x3,)) for make in solid]


def elementwise() -> list[tuple[Callable[[], nn.Module], tuple]]:
    kinds = "ReLU ReLU6 ELU SELU CELU GELU SiLU Mish LeakyReLU PReLU RReLU Hardswish Hardtanh Hardsigmoid Hardshrink "
    kinds += "Sigmoid Tanh Softplus Softshrink Softsign Tanhshrink LogSigmoid GLU Identity AlphaDropout Softmin"
    found = [(getattr(nn, name), (randn(3, 4),)) for name in kinds.split()]
    for name in ("ReLU", "SiLU", "Dropout", "Hardtanh", "RReLU", "LeakyReLU", "ELU", "Threshold"):
        more = (0.1, 0.2) if name == "Threshold" else ()
        found.append(
            (lambda n=name, m=more: nn.Sequential(nn.Linear(4, 4), getattr(nn, n)(*m, inplace=True)), (randn(3, 4),))
        )
    return found


def sequences() -> list[tuple[Callable[[], nn.Module], tuple]]:
    x, tokens = randn(5, 3, 4), torch.tensor([[0, 2, 1], [3, 0, 2]])
    found: list = []
    for kind, bias, double, layers in itertools.product(
        (nn.RNN, nn.LSTM, nn.GRU), (True, False), (True, False), (1, 2)
    ):
        more = {"bias": bias, "bidirectional": double, "num_layers": layers, "dropout": 0.5 if layers > 1 else 0.0}
        found += [
            (lambda k=kind, m=more: k(4, 6, **m), (x,)),
            (lambda k=kind, m=more: k(4, 6, batch_first=True, **m), (x,)),
        ]
        packed = nn.utils.rnn.pack_sequence([randn(3, 4), randn(2, 4)])
        found.append((lambda k=kind, m=more: k(4, 6, **m), (packed,)))
    found += [(lambda k=kind: k(4, 6), (randn(3, 4),)) for kind in (nn.RNNCell, nn.LSTMCell, nn.GRUCell)]
    found += [
        (lambda: nn.Embedding(5, 4, max_norm=0.5), (tokens,)),
        (lambda: nn.Embedding(5, 4, padding_idx=0), (tokens,)),
    ]
    found += [
        (lambda m=mode: nn.EmbeddingBag(5, 4, mode=m, max_norm=0.5), (tokens,)) for mode in ("sum", "mean", "max")
    ]
    found += [
        (lambda: nn.MultiheadAttention(4, 2), (x, x, x)),
        (lambda: nn.MultiheadAttention(4, 2, bias=False), (x, x, x)),
    ]
    found += [(lambda: nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), (x,))]
    found += [
        (lambda: nn.TransformerDecoderLayer(4, 2, 8), (x, x)),
        (lambda: nn.Bilinear(4, 4, 3), (randn(3, 4), randn(3, 4))),
    ]
    linear = lambda: nn.Linear(4, 3)  # noqa: E731
    found += [(linear, (x,)), (linear, (x[0, 0],)), (lambda: nn.Linear(4, 3, bias=False), (x,))]
    found += [(lambda: nn.utils.parametrizations.weight_norm(linear()), (x,))]
    found += [(lambda: nn.utils.parametrizations.spectral_norm(linear()), (x,))]
    return [*found, (lambda: nn.utils.parametrizations.orthogonal(linear()), (x,))]


def losses() -> list[tuple[Callable[[], nn.Module], tuple]]:
    x, y, label = randn(4, 5), torch.rand(4, 5), torch.tensor([0, 3, 1, 4])
    pairs = "MSELoss L1Loss SmoothL1Loss HuberLoss KLDivLoss BCEWithLogitsLoss PoissonNLLLoss MultiLabelSoftMarginLoss"
    found = [
        (lambda n=name, r=r: getattr(nn, n)(reduction=r), (x, y)) for name in pairs.split() for r in ("mean", "none")
    ]
    classes = ("CrossEntropyLoss", "NLLLoss", "MultiMarginLoss")
    found += [
        (lambda n=name, r=r: getattr(nn, n)(reduction=r), (x, label)) for name in classes for r in ("mean", "none")
    ]
    found += [(lambda: nn.CrossEntropyLoss(label_smoothing=0.1), (x, label)), (nn.CrossEntropyLoss, (x, y))]
    found += [
        (nn.MultiLabelMarginLoss, (x, torch.tensor([[0, 1, -1, 2, 3]] * 4))),
        (nn.SoftMarginLoss, (x, y.round() * 2 - 1)),
    ]
    found += [
        (nn.BCELoss, (torch.rand(4, 5), y)),
        (nn.TripletMarginLoss, (x, y, x + 1)),
        (nn.GaussianNLLLoss, (x, y, y)),
    ]
    found += [(nn.CosineEmbeddingLoss, (x, y, torch.ones(4))), (nn.MarginRankingLoss, (x[0], y[0], torch.ones(5)))]
    return [*found, (nn.CTCLoss, (randn(6, 2, 5).log_softmax(-1), torch.ones(2, 3).long(), (6, 6), (3, 2)))]


def try_module(watch: Watch, make: Callable[[], nn.Module], inputs: tuple, form: Callable, dtype: torch.dtype) -> None:
    """One module in training, in evaluation and in evaluation without gradients, which has paths of its own."""
    for train, grad, fast in ((True, True, True), (True, True, False), (False, True, True), (False, False, True)):
        module = make().to(dtype).train(train)
        leaves = [x for x in module.parameters() if x.requires_grad]
        given = [prepared(x, dtype, form, leaves if grad else None) for x in inputs]
        watch.label = f"{str(module).splitlines()[0]} {dtype} {form.__name__} train {train} grad {grad} mkldnn {fast}"
        with torch.set_grad_enabled(grad), torch.backends.mkldnn.flags(enabled=fast):
            attempt(watch, lambda m=module, g=given: m(*g), leaves, expanded=not fast)


def try_modules(watch: Watch, form: Callable, dtype: torch.dtype) -> None:
    for make, inputs in convolutions() + elementwise() + sequences() + losses():
        try_module(watch, make, inputs, form, dtype)


def try_training(watch: Watch, forms: tuple = FORMS[:4], dtypes: tuple = (torch.float32, torch.bfloat16)) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try_lists(watch)
        for form, dtype in itertools.product(forms, dtypes):
            try_named(watch, form, dtype)
            try_modules(watch, form, dtype)
