"""All transforms, and runs of them, for the laws that each of them obeys."""

import torch

from functrain import optim, random, schedule

KEY = random.key(0)

PARAMETERS = {"0": {"weight": (3, 2), "bias": (3,)}, "temperature": ()}


def draw(seed, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return {
        key: {k: torch.randn(s, generator=generator, dtype=dtype) for k, s in shape.items()}
        if isinstance(shape, dict)
        else torch.randn(shape, generator=generator, dtype=dtype)
        for key, shape in PARAMETERS.items()
    }


def run(transform, steps=4, params=None, seed=100):
    """Step with the gradients drawn from the seeds seed, seed + 1, ...: (parameters, last updates, state)."""
    params = draw(0) if params is None else params
    state, updates = transform.init(params), None
    for step in range(steps):
        context = optim.Context(step / steps, step, step / 2, step, random.fold_in(KEY, step), loss=1.0, weight=2.0)
        updates, state = transform.update(draw(seed + step, params["temperature"].dtype), state, params, context)
        params = optim.apply_updates(params, updates)
    return params, updates, state


def tensors(step, steps):
    """The context of a traced step: its numbers are float64 and int64 scalars."""
    scalar = torch.tensor(step / steps, dtype=torch.float64)
    return optim.Context(scalar, torch.tensor(step), scalar, torch.tensor(step), KEY, torch.tensor(1.0), scalar + 1)


REAL = {"orthogonalize", "scale by shape", "muon", "adafactor", "adafactor with all", "sm3", "ranger", "centralize"}
REAL |= {"clip by unit norm", "adaptive grad clip", "keep nonnegative", "keep in box", "keep in l1 ball"}
REAL |= {"keep in l2 ball", "keep on simplex"}
"""Those that refuse complex parameters."""

NEVER_STILL = {"yogi", "noisy sgd", "keep nonnegative", "keep in box", "keep in l1 ball", "keep in l2 ball"}
NEVER_STILL |= {"keep on simplex"}
"""Those that move parameters though all gradients are 0."""

RISE = schedule.linear(0.1, 0.9)


def of_matrices(transform):
    """What takes matrices alone, and nothing for the rest."""
    return optim.partition({"matrices": transform, "others": optim.identity}, {"matrices": "*.weight", "others": ...})


TRANSFORMS = {
    "identity": optim.identity,
    "scale": optim.scale(-0.5),
    "scheduled scale": optim.scale(RISE),
    "learning rate": optim.scale_by_learning_rate(0.1),
    "weight decay": optim.add_decayed_weights(0.1),
    "scheduled weight decay": optim.add_decayed_weights(RISE),
    "trace": optim.trace(0.9),
    "trace dampened": optim.trace(0.9, dampening=0.5),
    "trace nesterov": optim.trace(0.9, nesterov=True),
    "trace scheduled": optim.trace(RISE, dampening=RISE),
    "trace nesterov scheduled": optim.trace(RISE, nesterov=True),
    "clip": optim.clip_by_global_norm(0.5),
    "scheduled clip": optim.clip_by_global_norm(RISE),
    "scale by adam": optim.scale_by_adam(),
    "scale by adam scheduled": optim.scale_by_adam(RISE, RISE, RISE),
    "sgd": optim.sgd(0.1),
    "sgd with all": optim.sgd(RISE, momentum=0.9, nesterov=True, weight_decay=0.1, maximize=True),
    "adam": optim.adam(0.01, weight_decay=0.1),
    "adamw": optim.adamw(RISE),
    "chain": optim.chain(optim.clip_by_global_norm(1.0), optim.sgd(0.1, momentum=0.9)),
    "accumulate": optim.accumulate(2)(optim.sgd(0.1, momentum=0.9)),
    "accumulated adam": optim.accumulate(3, optim.adamw(RISE)),
    "skip": optim.skip_nonfinite(optim.adam(RISE)),
    "chain after accumulation": optim.chain(optim.accumulate(2, optim.trace(0.5)), optim.adamw(0.1)),
    "scale by lion": optim.scale_by_lion(),
    "lion": optim.lion(RISE, weight_decay=0.1),
    "negate": optim.negate,
    "ema": optim.ema(RISE, nesterov=True),
    "clip by block rms": optim.clip_by_block_rms(RISE),
    "scale by param rms": optim.scale_by_param_rms(),
    "scale by shape": of_matrices(optim.scale_by_shape()),
    "orthogonalize": of_matrices(optim.orthogonalize(dtype=None)),
    "average iterates": optim.average_iterates(1),
    "adam with all": optim.adam(RISE, RISE, RISE, RISE, RISE, amsgrad=True, maximize=True),
    "amsgrad": optim.amsgrad(0.01),
    "adamax": optim.adamax(RISE, RISE, RISE, RISE, RISE),
    "nadam": optim.nadam(0.01, weight_decay=0.1),
    "nadamw": optim.nadamw(RISE, RISE, RISE, RISE, RISE, RISE),
    "radam": optim.radam(0.01, b2=0.5, weight_decay=0.1),
    "radam with all": optim.radam(RISE, RISE, RISE, RISE, RISE, decoupled=True, maximize=True),
    "rmsprop": optim.rmsprop(0.01, weight_decay=0.1),
    "rmsprop with all": optim.rmsprop(RISE, RISE, RISE, centered=True, momentum=RISE, weight_decay=RISE),
    "adagrad": optim.adagrad(0.1, initial=0.1, weight_decay=0.1),
    "adagrad with all": optim.adagrad(RISE, RISE, RISE, eps=RISE),
    "adadelta": optim.adadelta(RISE, RISE, RISE, weight_decay=RISE),
    "rprop": optim.rprop(0.1),
    "asgd": optim.asgd(0.1, start=1),
    "asgd with all": optim.asgd(RISE, RISE, RISE, weight_decay=RISE),
    "adafactor": optim.adafactor(0.1),
    "adafactor with all": optim.adafactor(RISE, -0.5, 1e-3, RISE, RISE, RISE),
    "muon": optim.muon(RISE, dtype=None),
    "adabelief": optim.adabelief(RISE, RISE, RISE, RISE, RISE, RISE),
    "yogi": optim.yogi(RISE, RISE, RISE, RISE, initial=0.1),
    "novograd": optim.novograd(RISE, RISE, RISE, RISE, RISE),
    "lamb": optim.lamb(RISE, RISE, RISE, RISE, RISE, RISE, adapted="*.weight"),
    "lars": optim.lars(RISE, RISE, True, RISE, RISE, RISE),
    "sm3": optim.sm3(RISE, RISE, RISE),
    "adan": optim.adan(RISE, RISE, RISE, RISE, RISE, RISE),
    "ademamix": optim.ademamix(RISE, RISE, RISE, RISE, RISE, RISE, RISE),
    "adopt": optim.adopt(RISE, RISE, RISE, RISE),
    "madgrad": optim.madgrad(RISE, RISE, RISE, RISE),
    "signum": optim.signum(RISE, RISE, RISE),
    "mars": optim.mars(RISE, RISE, RISE, RISE, RISE, RISE),
    "ranger": optim.ranger(RISE, RISE, 0.5, RISE, RISE, k=2, slow_lr=RISE),
    "cautious": optim.cautious(optim.sgd(RISE, momentum=RISE)),
    "cautious adamw": optim.cautious_adamw(RISE, RISE, RISE, RISE, RISE, decayed=optim.no_biases_or_norms),
    "momentum": optim.momentum(RISE, RISE, weight_decay=RISE),
    "noisy sgd": optim.noisy_sgd(RISE, RISE, RISE),
    "clip by value": optim.clip(RISE),
    "clip by block norm": optim.clip_by_block_norm(RISE),
    "clip by unit norm": optim.clip_by_unit_norm(RISE),
    "adaptive grad clip": optim.adaptive_grad_clip(RISE, RISE),
    "zero nans": optim.zero_nans(),
    "centralize": optim.centralize(),
    "keep nonnegative": optim.keep_nonnegative(),
    "keep in box": optim.keep_in_box(-0.5, RISE),
    "keep in l1 ball": optim.keep_in_l1_ball(RISE),
    "keep in l2 ball": optim.keep_in_l2_ball(RISE),
    "keep on simplex": optim.keep_on_simplex(RISE),
    "rmsprop with eps in the root": optim.rmsprop(RISE, eps=RISE, centered=True, eps_in_root=True),
    "lbfgs without a search": optim.lbfgs(RISE, history_size=3, line_search=None),
    "named chain": optim.named_chain({"clip": optim.clip_by_global_norm(1.0), "sgd": optim.sgd(0.1, momentum=0.9)}),
    "named chain with a gate": optim.named_chain({"sum": optim.accumulate(2, optim.trace(0.5)), "adam": optim.adam()}),
    "masked": optim.masked("*.weight", optim.add_decayed_weights(0.1)),
    "gate": optim.gate(schedule.piecewise_constant([0.5], [0, 1]), optim.adam(0.1)),
    "unfreeze gradually": optim.unfreeze_gradually(optim.adam(RISE), ["0.*", ...], [0.5]),
    "discriminative": optim.discriminative(
        optim.adam, optim.spread(["body", "head"], RISE, 0.5), {"body": "0.*", "head": ...}
    ),
    "lookahead": optim.lookahead(2, 0.5, optim.adam(0.1)),
    "lookahead around accumulation": optim.lookahead(2, RISE, optim.accumulate(2, optim.sgd(0.1, momentum=0.9))),
    "apply if finite": optim.apply_if_finite(2, optim.adam(RISE)),
    "flatten": optim.flatten(optim.adam(RISE)),
    "flattened sgd": optim.flatten(optim.sgd(0.1, momentum=0.9)),
    "inject": optim.inject(optim.adam, lr=0.1, b1=0.5),
    "injected and scheduled": optim.chain(
        optim.clip_by_global_norm(1.0), optim.inject(optim.sgd, lr=RISE, momentum=0.9, nesterov=True)
    ),
    "reduce on plateau": optim.chain(optim.sgd(0.1), optim.reduce_on_plateau(0.5, patience=0)),
    "freeze": optim.freeze("0.bias", optim.adam(0.1)),
    "partition": optim.partition(
        {"matrices": optim.sgd(0.1, momentum=0.9), "temperature": optim.adam(RISE)},
        {"matrices": "*.*", "temperature": ...},
    ),
}
