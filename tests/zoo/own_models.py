"""Small modules of torch.nn and of no library, for the zoo."""

import torch
from torch import nn as tnn

from tests.interop import modules
from tests.zoo.comparing import Case, mean_square


def rows(*shape: int):
    return lambda: torch.randn(*shape)


def sequence_pair() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(2, 5, 8), torch.randn(2, 4, 8)


def encoder() -> tnn.Module:
    return tnn.TransformerEncoder(
        tnn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2, enable_nested_tensor=False
    )


def unusual_norms() -> tnn.Module:
    parts = tnn.Linear(4, 4), tnn.BatchNorm1d(4, momentum=None), tnn.AlphaDropout(0.2), tnn.Unflatten(1, (4, 1))
    return tnn.Sequential(
        *parts, tnn.Conv1d(4, 4, 3, padding=2), tnn.InstanceNorm1d(4, track_running_stats=True), tnn.RReLU()
    )


def parametrized() -> tnn.Module:
    by = tnn.utils.parametrizations
    return tnn.Sequential(
        by.weight_norm(tnn.Linear(4, 5)), by.spectral_norm(tnn.Linear(5, 4)), by.orthogonal(tnn.Linear(4, 4))
    )


def pools() -> tnn.Module:
    return tnn.Sequential(
        tnn.Conv2d(1, 2, 3), tnn.FractionalMaxPool2d(2, output_ratio=0.5), tnn.FeatureAlphaDropout(0.3)
    )


def tokens() -> torch.Tensor:
    return torch.randint(0, 7, (3, 5))


CASES = [
    Case("own ResNet", modules.resnet, rows(4, 1, 10, 10), mean_square),
    Case("own U-Net", modules.UNet, rows(2, 1, 8, 8), mean_square),
    Case("a bound method kept", modules.Bound, rows(6, 4), mean_square),
    Case("an object that holds a module", modules.ByHelper, rows(6, 4), mean_square),
    Case("computes at train()", modules.CachesAtRest, rows(6, 4), mean_square),
    Case("a submodule shared", modules.Shared, rows(6, 4), mean_square),
    Case("buffers moved in place", modules.Average, rows(6, 4), mean_square),
    Case("draws of all kinds", modules.Samples, rows(6, 4), mean_square),
    Case("frozen parts", modules.FrozenNorm, rows(6, 4), mean_square),
    Case("tied weights", modules.Tied, tokens, mean_square),
    Case("autocast", modules.Autocast, rows(6, 4), mean_square, tolerance=0.02),
    Case("torch TransformerEncoder", encoder, rows(2, 5, 8), mean_square),
    Case("torch Transformer", lambda: tnn.Transformer(8, 2, 1, 1, 16, batch_first=True), sequence_pair, mean_square),
    Case("torch MultiheadAttention", modules.Attends, rows(2, 5, 8), mean_square),
    Case("torch LSTM, GRU, RNN", modules.Recurrent, rows(4, 6, 5), mean_square),
    Case("torch norms", unusual_norms, rows(6, 4), mean_square),
    Case("torch parametrizations", parametrized, rows(6, 4), mean_square),
    Case("torch pools and dropouts", pools, rows(3, 1, 9, 9), mean_square),
]
