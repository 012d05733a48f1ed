"""The laws of `functrain.testing`, of all that functrain itself offers."""

from functools import partial

import pytest
import torch

from functrain import data, losses, metrics, nn, optim, schedule, testing

RISE = schedule.linear(0.1, 0.9)
ROWS = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
IMAGES = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(1))

LAYERS = {
    "dense": (nn.dense(5), ROWS),
    "relu": (torch.relu, ROWS),
    "conv": (nn.conv(4, 3), IMAGES),
    "batch norm": (nn.batch_norm(), ROWS),
    "batch norm of images": (nn.batch_norm(), IMAGES),
    "layer norm": (nn.layer_norm(), ROWS),
    "dropout": (nn.dropout(0.5), ROWS),
    "scheduled dropout": (nn.dropout(RISE), ROWS),
    "embedding": (nn.embedding(7, 3), torch.tensor([[1, 2], [3, 4], [5, 6]])),
    "residual": (nn.residual(nn.serial(nn.dense(3), nn.batch_norm(), torch.tanh)), ROWS),
    "net": (nn.serial(nn.conv(4, 3), nn.batch_norm(), nn.relu, nn.flatten, nn.dropout(0.2), nn.dense(2)), IMAGES),
}

TRANSFORMS = {
    "identity": optim.identity,
    "weight decay": optim.add_decayed_weights(RISE),
    "trace": optim.trace(RISE, nesterov=True),
    "clip": optim.clip_by_global_norm(0.5),
    "sgd": optim.sgd(RISE, momentum=0.9, nesterov=True, weight_decay=0.1),
    "adam": optim.adam(0.01, weight_decay=0.1),
    "adamw": optim.adamw(RISE),
    "accumulate": optim.accumulate(2, optim.adamw(RISE)),
    "partition": optim.partition(
        {"weight": optim.sgd(0.1, momentum=0.9), "bias": optim.adam(RISE)}, {"weight": "*weight", "bias": ...}
    ),
}

LOGITS = torch.randn(6, 3, generator=torch.Generator().manual_seed(2))
LABELS = torch.tensor([0, 1, 2, 2, 1, 0])

LOSSES = {
    "mse": (losses.mse, LOGITS, LOGITS.flip(0)),
    "mae": (losses.mae, LOGITS, LOGITS.flip(0)),
    "binary cross entropy": (losses.binary_cross_entropy, LOGITS, (LOGITS.flip(0) > 0).float()),
    "cross entropy": (losses.cross_entropy, LOGITS, LABELS),
    "smoothed cross entropy": (partial(losses.cross_entropy, label_smoothing=0.1), LOGITS, LABELS),
    "cross entropy of tokens": (losses.cross_entropy, LOGITS.reshape(2, 3, 3), LABELS.reshape(2, 3)),
}

METRICS = {
    "accuracy": metrics.accuracy,
    "top 2": metrics.top_k(2),
    "loss": metrics.mean(losses.cross_entropy),
    "collection": metrics.collection({"accuracy": metrics.accuracy, "loss": metrics.mean(losses.cross_entropy)}),
}

SAMPLERS = {
    f"{make.__name__} {remainder} {in_memory}": make(4, remainder, **({} if in_memory else {"in_memory": False}))
    for make in (data.sequential, data.shuffled)
    for remainder in ("keep", "drop", "pad")
    for in_memory in ([True, False] if make is data.shuffled else [True])
}


@pytest.mark.parametrize(("layer", "example"), LAYERS.values(), ids=LAYERS)
def test_layers(layer, example):
    skip = ["vmap"] if example.dtype == torch.int64 else []
    assert len(testing.check_layer(layer, example, skip=skip)) >= 7


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_transforms(transform):
    assert len(testing.check_transform(transform)) == 7


@pytest.mark.parametrize(("loss", "prediction", "target"), LOSSES.values(), ids=LOSSES)
def test_losses(loss, prediction, target):
    assert len(testing.check_loss(loss, prediction, target)) == 5


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_metrics(metric):
    assert len(testing.check_metric(metric, LOGITS, LABELS)) == 5


@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
@pytest.mark.parametrize("n", [1, 4, 8, 23])
def test_samplers(sampler, n):
    assert len(testing.check_sampler(sampler, n, epochs=2)) == 4


def test_functions():
    testing.check_pure(torch.sin, LOGITS)
    testing.check_jit(torch.sin, LOGITS)
    testing.check_vmap(lambda p: {"y": p["x"].sum()}, {"x": LOGITS})
