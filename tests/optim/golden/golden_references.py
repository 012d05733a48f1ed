"""References by hand: the authors' formulas, where no library has the method, or has it otherwise."""

import math
from unittest import mock

import torch
from golden_problems import STEPS, Course, Evaluate, Params
from golden_recording import optax_course, torch_course


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


def mechanized(lr: float, s_init: float) -> Course:
    """Return the course of optax's Mechanic around its descent with momentum."""

    def make():
        import optax

        return optax.contrib.mechanize(optax.sgd(lr, momentum=0.9), s_init=s_init)

    return optax_course(make)


def polyak(most: float, lowest: float, eps: float) -> Course:
    """Return the course of Polyak's rule, as Loizou et al. bound it: SPS_max."""

    def course(params: Params, evaluate: Evaluate):
        for step in range(STEPS):
            loss, grads = evaluate(params, step)
            square = sum(float(g.square().sum()) for g in grads.values())
            rate = min(most, (float(loss) - lowest) / (square + eps))
            params = {name: p - rate * grads[name] for name, p in params.items()}
            yield params

    return course


def sam(lr: float, rho: float, momentum: float, adaptive: bool) -> Course:
    """Return the course of Foret et al.'s SAM around descent with momentum, or of Kwon et al.'s ASAM."""

    def course(params: Params, evaluate: Evaluate):
        buffers = {name: torch.zeros_like(p) for name, p in params.items()}
        for step in range(STEPS):
            grads = evaluate(params, step)[1]
            scales = {name: p.abs() if adaptive else torch.ones_like(p) for name, p in params.items()}
            norm = math.sqrt(sum(float((scales[name] * grads[name]).square().sum()) for name in params))
            uphill = {name: p + rho * scales[name] ** 2 * grads[name] / norm for name, p in params.items()}
            grads = evaluate(uphill, step)[1]
            buffers = {name: momentum * buffers[name] + grads[name] for name in params}
            params = {name: p - lr * buffers[name] for name, p in params.items()}
            yield params

    return course


def shampoo(lr: float, eps: float) -> Course:
    """Return the course of Gupta et al.'s Shampoo: of a tensor of order k, each axis to the power -1 / 2k."""

    def power(matrix: torch.Tensor, exponent: float) -> torch.Tensor:
        values, vectors = torch.linalg.eigh(matrix)
        return vectors @ torch.diag(values**exponent) @ vectors.T

    def course(params: Params, evaluate: Evaluate):
        moments = {name: [eps * torch.eye(n, dtype=p.dtype) for n in p.shape] for name, p in params.items()}
        for step in range(STEPS):
            grads, after = evaluate(params, step)[1], {}
            for name, p in params.items():
                way = g = grads[name]
                for axis in range(g.dim()):
                    rows = g.movedim(axis, 0).reshape(g.shape[axis], -1)
                    moments[name][axis] = moments[name][axis] + rows @ rows.T
                    root = power(moments[name][axis], -1 / (2 * g.dim()))
                    way = torch.tensordot(root, way.movedim(axis, 0), 1).movedim(0, axis)
                after[name] = p - lr * way
            params = after
            yield params

    return course


def soap(every: int, max_size: int, **options: float) -> Course:
    """Return the course of pytorch_optimizer's SOAP, whose float32 for a change of bases stands for float64 here."""

    def course(params: Params, evaluate: Evaluate):
        from pytorch_optimizer import SOAP

        sizes = {"precondition_frequency": every, "max_precondition_dim": max_size}
        with mock.patch("torch.float32", torch.float64):
            yield from torch_course(SOAP, **sizes, **options)(params, evaluate)

    return course


def galore(lr: float, rank: int, every: int, scale: float, eps: float) -> Course:
    """Return the course of pytorch_optimizer's GaLore.

    Its float32 for a change of directions stands for float64 here. It counts updates from 1 and the authors from 0.
    Where directions change, a course depends on their signs, which no decomposition promises: here the largest element
    of each is positive.
    """

    def positive(directions: torch.Tensor) -> torch.Tensor:
        largest = directions.gather(0, directions.abs().argmax(0, keepdim=True))
        return directions * largest.sign()

    def course(params: Params, evaluate: Evaluate):
        from pytorch_optimizer import GaLore
        from pytorch_optimizer.optimizer.utils.galore import GaLoreProjector

        svd, project = torch.linalg.svd, GaLoreProjector.project

        def signed(matrix: torch.Tensor, full_matrices: bool):
            left, values, right = svd(matrix, full_matrices=full_matrices)
            return positive(left), values, positive(right.T).T

        options = {"rank": rank, "update_proj_gap": every, "scale": scale, "projection_type": "std"}
        with (
            mock.patch("torch.float", torch.float64),
            mock.patch("torch.linalg.svd", signed),
            mock.patch.object(GaLoreProjector, "project", lambda self, grad, step: project(self, grad, step - 1)),
        ):
            yield from torch_course(GaLore, lr=lr, eps=eps, **options)(params, evaluate)

    return course


def sophia(lr: float, every: int, **options: float) -> Course:
    """Return the course of optax's Sophia, with Hutchinson's estimate of the Hessian's diagonal by `signs`."""

    def course(params: Params, evaluate: Evaluate):
        import jax
        import optax

        jax.config.update("jax_enable_x64", True)
        loss = evaluate.__self__.loss  # of the `Problem` whose method it is

        def estimate(leaves: dict, turn) -> dict:
            names, step = sorted(leaves), int(turn) * every
            rows = tuple(torch.tensor(leaves[name].tolist(), dtype=torch.float64) for name in names)
            r = tuple(signs(step, name, row.shape) for name, row in zip(names, rows, strict=True))
            f = lambda *rows: loss(dict(zip(names, rows, strict=True)), step)  # noqa: E731
            products = torch.autograd.functional.hvp(f, rows, r)[1]
            return {name: (a * b).numpy() for name, a, b in zip(names, r, products, strict=True)}

        def update(updates, turn, params=None, **_):
            kinds = {name: jax.ShapeDtypeStruct(p.shape, p.dtype) for name, p in params.items()}
            return jax.pure_callback(estimate, kinds, params, turn), turn + 1

        diagonal = optax.GradientTransformationExtraArgs(lambda params: jax.numpy.zeros((), int), update)
        made = optax.contrib.sophia(lr, update_interval=every, hessian_diagonal_fn=diagonal, **options)
        yield from optax_course(lambda: made)(params, evaluate)

    return course


def signs(step: int, name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Return 1 or -1 for each element, others for each step and name."""
    size = torch.Size(shape).numel()
    waves = (torch.arange(size, dtype=torch.float64) * 1.7 + 2.9 * step + len(name) + 0.5).sin()
    return torch.where(waves > 0, 1.0, -1.0).double().reshape(shape)
