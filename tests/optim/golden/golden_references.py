"""References by hand: the authors' formulas, where no library has the method, or has it otherwise."""

import math

import torch
from golden_problems import STEPS, Course, Evaluate, Params
from golden_recording import optax_course


def lesson_momentum(lr: float, momentum: float) -> Course:
    """Return the course of notebook 09's mean of gradients, with its `debias`."""

    def course(params: Params, evaluate: Evaluate):
        means = {name: torch.zeros_like(p) for name, p in params.items()}
        for step in range(STEPS):
            grads = evaluate(params, step)[1]
            means = {name: momentum * means[name] + (1 - momentum) * grads[name] for name in params}
            debias = (1 - momentum) * (1 - momentum ** (step + 1)) / (1 - momentum)
            params = {name: p - lr * means[name] / debias for name, p in params.items()}
            yield params

    return course


def lesson_lamb(lr: float, momentum: float, square_momentum: float, eps: float, weight_decay: float) -> Course:
    """Return the course of notebook 09's LAMB, whose ratio is at most 10."""

    def course(params: Params, evaluate: Evaluate):
        means = {name: torch.zeros_like(p) for name, p in params.items()}
        squares = {name: torch.zeros_like(p) for name, p in params.items()}
        for step in range(STEPS):
            grads, after = evaluate(params, step)[1], {}
            for name, p in params.items():
                means[name] = momentum * means[name] + (1 - momentum) * grads[name]
                squares[name] = square_momentum * squares[name] + (1 - square_momentum) * grads[name] ** 2
                mean = means[name] / (1 - momentum ** (step + 1))
                square = squares[name] / (1 - square_momentum ** (step + 1))
                way = mean / (square.sqrt() + eps) + weight_decay * p
                ratio = p.pow(2).mean().sqrt() / way.pow(2).mean().sqrt()
                after[name] = p - lr * min(ratio.item(), 10.0) * way
            params = after
            yield params

    return course


def cautious_adamw(lr: float, b1: float, b2: float, eps: float, weight_decay: float) -> Course:
    """Return the course of Liang et al.'s C-AdamW: the mean of the mask is 1, and at least a thousandth is trusted."""

    def course(params: Params, evaluate: Evaluate):
        means = {name: torch.zeros_like(p) for name, p in params.items()}
        squares = {name: torch.zeros_like(p) for name, p in params.items()}
        for step in range(1, STEPS + 1):
            grads, after = evaluate(params, step - 1)[1], {}
            for name, p in params.items():
                g = grads[name]
                means[name] = b1 * means[name] + (1 - b1) * g
                squares[name] = b2 * squares[name] + (1 - b2) * g**2
                mask = (means[name] * g > 0).double()
                way = means[name] * mask / mask.mean().clamp(min=1e-3) / (1 - b1**step)
                size = squares[name].sqrt() / math.sqrt(1 - b2**step) + eps
                after[name] = p * (1 - lr * weight_decay) - lr * way / size
            params = after
            yield params

    return course


def cautious_lion(lr: float, b1: float, b2: float, weight_decay: float) -> Course:
    """Return the course of Liang et al.'s C-Lion."""

    def course(params: Params, evaluate: Evaluate):
        means = {name: torch.zeros_like(p) for name, p in params.items()}
        for step in range(STEPS):
            grads, after = evaluate(params, step)[1], {}
            for name, p in params.items():
                way = torch.sign(b1 * means[name] + (1 - b1) * grads[name])
                mask = (way * grads[name] > 0).double()
                after[name] = p * (1 - lr * weight_decay) - lr * way * mask / mask.mean().clamp(min=1e-3)
                means[name] = b2 * means[name] + (1 - b2) * grads[name]
            params = after
            yield params

    return course


def adaptive_clip(lr: float, clipping: float) -> Course:
    """Return the course of optax's adaptive clip, whose units are the rows of matrices as PyTorch keeps them."""

    def make():
        import optax

        clips = {
            "matrix": optax.adaptive_grad_clip(clipping, axis=1),
            "vector": optax.adaptive_grad_clip(clipping),
        }
        labels = lambda params: {name: "matrix" if p.ndim == 2 else "vector" for name, p in params.items()}  # noqa: E731
        return optax.chain(optax.multi_transform(clips, labels), optax.sgd(lr))

    return optax_course(make)


def projected(lr: float, onto: str, **options: float) -> Course:
    """Return the course of descent that optax projects after each step, all parameters as one vector."""

    def course(params: Params, evaluate: Evaluate):
        import jax
        import optax

        jax.config.update("jax_enable_x64", True)
        project = getattr(optax.projections, onto)
        for step in range(STEPS):
            grads = evaluate(params, step)[1]
            there = {name: jax.numpy.asarray((p - lr * grads[name]).numpy()) for name, p in params.items()}
            there = project(there, **options)
            params = {name: torch.tensor(p.tolist(), dtype=torch.float64) for name, p in there.items()}
            yield params

    return course
