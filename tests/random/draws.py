"""Every draw that has a shape, as functions of a key and a shape."""

import torch

from functrain import random

DRAWS_OF_A_SHAPE = {
    "bits": random.bits,
    "uniform": random.uniform,
    "uniform float64": lambda key, shape: random.uniform(key, shape, -1.0, 3.0, torch.float64),
    "normal": random.normal,
    "normal float64": lambda key, shape: random.normal(key, shape, torch.float64),
    "truncated_normal": random.truncated_normal,
    "truncated_normal float64": lambda key, shape: random.truncated_normal(key, shape, dtype=torch.float64),
    "bernoulli": lambda key, shape: random.bernoulli(key, 0.3, shape),
    "bernoulli tensor": lambda key, shape: random.bernoulli(key, torch.full(shape, 0.3)),
    "bernoulli rounded": lambda key, shape: random.bernoulli(key, 0.5, shape),
    "bernoulli by a tensor": lambda key, shape: random.bernoulli(key, torch.tensor(0.3), shape),
    "dropout_mask": lambda key, shape: random.dropout_mask(key, 0.3, shape),
    "dropout_mask by a tensor": lambda key, shape: random.dropout_mask(key, torch.tensor(0.3), shape),
    "dropout_mask bfloat16": lambda key, shape: random.dropout_mask(key, 0.3, shape, torch.bfloat16),
    "uniform bfloat16": lambda key, shape: random.uniform(key, shape, -1.0, 3.0, torch.bfloat16),
    "uniform float16": lambda key, shape: random.uniform(key, shape, dtype=torch.float16),
    "randint wide": lambda key, shape: random.randint(key, shape, -(2**63), 2**63 - 1),
    "randint by tensors": lambda key, shape: random.randint(key, shape, torch.tensor(-5), torch.tensor(2**40)),
    "randint": lambda key, shape: random.randint(key, shape, -5, 10**6),
    "categorical": lambda key, shape: random.categorical(key, torch.zeros(5), shape),
    "categorical float64": lambda key, shape: random.categorical(key, torch.zeros(5, dtype=torch.float64), shape),
}
