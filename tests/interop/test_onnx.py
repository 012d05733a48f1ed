"""A model as a module can be exported to ONNX: another runtime computes from the file what the model computes."""

import warnings
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from functrain import nn, random

CONV = nn.serial(nn.conv(4, kernel_size=3, padding=1), nn.batch_norm(), nn.relu)
OWN = nn.serial(CONV, nn.flatten, nn.dropout(0.1), nn.dense(3))
MODULE = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(36, 5), torch.nn.BatchNorm1d(5), torch.nn.Dropout(0.2))


@pytest.mark.parametrize("model", [OWN, nn.from_module(MODULE)], ids=["own layers", "a module"])
def test_another_runtime_computes_the_same(model: nn.Model, tmp_path: Path) -> None:
    x = random.normal(random.key(1), (2, 1, 6, 6))
    params, buffers = model.init(random.key(0), x)
    _, buffers = model.apply(params, buffers, x, nn.training(random.key(2)))  # statistics that are not 0 and 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter about itself
        program = torch.onnx.export(nn.to_module(model, params, buffers).eval(), (x,), dynamo=True, verbose=False)
    program.save(tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    np.testing.assert_allclose(y, model.apply(params, buffers, x)[0], rtol=1e-4, atol=1e-5)
