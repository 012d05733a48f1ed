"""Models of timm and torchvision with random weights, and small images."""

from collections.abc import Callable
from typing import Any

import torch

from tests.zoo.comparing import Case, mean_square


def _images(size: int) -> Callable[[], torch.Tensor]:
    return lambda: torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))


def _timm(name: str, size: int = 64, **options: Any) -> Case:
    def make() -> torch.nn.Module:
        import timm

        return timm.create_model(name, num_classes=5, **options)

    # In float64, as batch norm over the few values of small images enlarges each rounding.
    return Case(f"timm {name}", make, _images(size), mean_square, lr=1e-4, dtype=torch.float64)


def _torchvision(name: str, size: int = 64, **options: Any) -> Case:
    def make() -> torch.nn.Module:
        import torchvision

        return getattr(torchvision.models, name)(num_classes=5, **options)

    return Case(f"torchvision {name}", make, _images(size), mean_square, lr=1e-4, dtype=torch.float64)


_DROP = {"drop_rate": 0.1, "drop_path_rate": 0.1}

CASES = [
    _timm("resnet18", **_DROP),
    _timm("efficientnet_b0", **_DROP),
    _timm("mobilenetv3_small_100", drop_rate=0.1),
    _timm("convnext_atto", **_DROP),
    _timm("convnextv2_atto", **_DROP),
    _timm("regnetx_002", **_DROP),
    _timm("densenet121", drop_rate=0.1),
    _timm("vit_tiny_patch16_224", img_size=64, **_DROP),
    _timm("deit_tiny_patch16_224", img_size=64, **_DROP),
    _timm("swin_tiny_patch4_window7_224", 56, img_size=56, window_size=7, **_DROP),
    _timm("mixer_s32_224", img_size=64, **_DROP),
    _timm("levit_128s", 224, drop_path_rate=0.1),
    _timm("mobilevit_xxs", **_DROP),
    _timm("poolformer_s12", **_DROP),
    _timm("ghostnet_100", drop_rate=0.1),
    _timm("repvgg_a0", **_DROP),
    _timm("xcit_nano_12_p16_224", img_size=64, **_DROP),
    _timm("cait_xxs24_224", img_size=64, **_DROP),
    _torchvision("resnet18"),
    _torchvision("vgg11_bn", dropout=0.3),
    _torchvision("mobilenet_v2"),
    _torchvision("shufflenet_v2_x0_5"),
    _torchvision("squeezenet1_1"),
    _torchvision("efficientnet_b0"),
    _torchvision("convnext_tiny"),
    _torchvision("swin_t"),
    _torchvision("densenet121"),
]
