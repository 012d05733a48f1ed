"""Networks whose training steps are measured for memory: DenseNet-121, ResNet-50 and a ViT, of `torch.nn` alone."""

import torch
from torch import Tensor, nn

CLASSES = 100


def _conv(inside: int, out: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inside, out, size, stride, size // 2, bias=False)


class _Dense(nn.Module):
    """Two convolutions whose result is appended to their input."""

    def __init__(self, inside: int, growth: int) -> None:
        super().__init__()
        parts = nn.BatchNorm2d(inside), nn.ReLU(), _conv(inside, 4 * growth, 1)
        self.body = nn.Sequential(*parts, nn.BatchNorm2d(4 * growth), nn.ReLU(), _conv(4 * growth, growth, 3))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.body(x)], 1)


def _head(width: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, CLASSES)]


def _stem() -> list[nn.Module]:
    return [_conv(3, 64, 7, 2), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]


def densenet() -> nn.Module:
    """Return a DenseNet-121 (Huang et al., 2017)."""
    layers, width, growth = _stem(), 64, 32
    for block, count in enumerate((6, 12, 24, 16)):
        if block:
            layers += [nn.BatchNorm2d(width), nn.ReLU(), _conv(width, width // 2, 1), nn.AvgPool2d(2)]
            width //= 2
        for _ in range(count):
            layers.append(_Dense(width, growth))
            width += growth
    return nn.Sequential(*layers, nn.BatchNorm2d(width), nn.ReLU(), *_head(width))


class _Bottleneck(nn.Module):
    def __init__(self, inside: int, width: int, stride: int) -> None:
        super().__init__()
        out = 4 * width
        first = _conv(inside, width, 1), nn.BatchNorm2d(width), nn.ReLU()
        second = _conv(width, width, 3, stride), nn.BatchNorm2d(width), nn.ReLU()
        self.body = nn.Sequential(*first, *second, _conv(width, out, 1), nn.BatchNorm2d(out))
        is_same = inside == out and stride == 1
        self.short = nn.Identity() if is_same else nn.Sequential(_conv(inside, out, 1, stride), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.short(x))


def resnet() -> nn.Module:
    """Return a ResNet-50 (He et al., 2016)."""
    layers, inside = _stem(), 64
    for block, count in enumerate((3, 4, 6, 3)):
        width = 64 * 2**block
        for k in range(count):
            layers.append(_Bottleneck(inside, width, 2 if block and k == 0 else 1))
            inside = 4 * width
    return nn.Sequential(*layers, *_head(inside))


class _Patches(nn.Module):
    def __init__(self, width: int, count: int) -> None:
        super().__init__()
        self.embed, self.position = nn.Conv2d(3, width, 16, 16), nn.Parameter(torch.zeros(count, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.embed(x).flatten(2).transpose(1, 2) + self.position


class _Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1)


def vit() -> nn.Module:
    """Return a ViT (Dosovitskiy et al., 2021) of six blocks of width 384, for images of 64 pixels."""
    blocks = [
        nn.TransformerEncoderLayer(384, 6, 1536, 0.0, "gelu", batch_first=True, norm_first=True) for _ in range(6)
    ]
    return nn.Sequential(_Patches(384, 16), *blocks, _Mean(), nn.Linear(384, CLASSES))


NETWORKS = {"densenet": densenet, "resnet": resnet, "vit": vit}
