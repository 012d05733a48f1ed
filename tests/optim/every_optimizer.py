"""All named optimizers, as functions of the learning rate, with rates that suit three problems.

The rates are the best of nine between 0.001 and 30, found once; the bounds of the tests stand well above what was
reached with them.
"""

from functrain import optim

# name: (of a rate, rates for the quadratic, Rosenbrock's valley and the classifier)
OPTIMIZERS = {
    "sgd": (lambda lr: optim.sgd(lr, momentum=0.9), (0.01, 0.003, 0.1)),
    "asgd": (optim.asgd, (0.1, 0.001, 0.1)),
    "adam": (optim.adam, (0.1, 0.1, 0.03)),
    "adamw": (lambda lr: optim.adamw(lr, weight_decay=1e-4), (0.1, 0.1, 0.03)),
    "amsgrad": (optim.amsgrad, (0.1, 0.3, 0.03)),
    "adamax": (optim.adamax, (0.3, 1.0, 0.03)),
    "nadam": (optim.nadam, (0.03, 0.03, 0.03)),
    "nadamw": (lambda lr: optim.nadamw(lr, weight_decay=1e-4), (0.1, 0.03, 0.03)),
    "radam": (optim.radam, (0.1, 0.003, 0.03)),
    "rmsprop": (optim.rmsprop, (0.01, 0.003, 0.01)),
    "rmsprop centered": (lambda lr: optim.rmsprop(lr, centered=True, momentum=0.9), (0.001, 0.003, 0.001)),
    "adagrad": (optim.adagrad, (3.0, 1.0, 0.1)),
    "adadelta": (optim.adadelta, (1.0, 0.3, 10.0)),
    "adafactor": (optim.adafactor, (0.1, 1.0, 0.1)),
    "rprop": (optim.rprop, (1.0, 0.03, 0.01)),
    "lion": (optim.lion, (0.01, 0.003, 0.003)),
    "muon": (lambda lr: optim.muon(lr, weight_decay=0.0, dtype=None), (0.01, 0.003, 0.03)),
    "adabelief": (optim.adabelief, (0.1, 0.1, 0.1)),
    "yogi": (optim.yogi, (1.0, 0.3, 0.3)),
    "novograd": (optim.novograd, (0.001, 0.001, 0.03)),
    # Its steps are of the size of the parameters, so they must become smaller.
    "lamb": (lambda lr: optim.chain(optim.lamb(lr), optim.scale_by_inverse_time(0.02)), (0.3, 0.3, 0.1)),
    "lars": (lambda lr: optim.lars(lr, trust_coefficient=0.1), (0.01, 0.01, 0.01)),
    "sm3": (optim.sm3, (3.0, 3.0, 1.0)),
    "adan": (optim.adan, (0.1, 0.01, 0.1)),
    "ademamix": (lambda lr: optim.ademamix(lr, b3=0.99), (0.1, 0.1, 0.1)),
    "adopt": (lambda lr: optim.adopt(lr, b2=0.99), (0.03, 0.01, 0.1)),
    "madgrad": (optim.madgrad, (0.03, 0.01, 0.1)),
    "signum": (optim.signum, (0.003, 0.003, 0.01)),
    "mars": (optim.mars, (0.03, 0.003, 0.1)),
    # The gradients of vectors are not centralized; of the matrices of these problems only a part could be found.
    "ranger": (lambda lr: optim.flatten(optim.ranger(lr)), (0.3, 0.005, 0.3)),
    "cautious": (lambda lr: optim.cautious(optim.adam(lr)), (0.1, 0.1, 0.1)),
    "cautious_adamw": (lambda lr: optim.cautious_adamw(lr, weight_decay=1e-4), (0.1, 0.1, 0.1)),
    "cautious_lion": (optim.cautious_lion, (0.003, 0.01, 0.01)),
    "momentum": (optim.momentum, (0.3, 0.003, 1.0)),
    "noisy_sgd": (lambda lr: optim.noisy_sgd(lr, eta=1e-4, gamma=2.0), (0.1, 0.002, 0.3)),
    "lbfgs": (optim.lbfgs, (1.0, 1.0, 1.0)),
    "dog": (lambda lr: optim.dog(lr, initial=1e-3), (3.0, 1.0, 3.0)),
    "dowg": (optim.dowg, (0.3, 0.3, 0.3)),
    "prodigy": (lambda lr: optim.prodigy(lr, initial=1e-3), (0.3, 3.0, 1.0)),
    "polyak_sgd": (optim.polyak_sgd, (1.0, 1.0, 1.0)),
    "schedule_free_sgd": (optim.schedule_free_sgd, (1.0, 0.003, 1.0)),
    "schedule_free_adamw": (optim.schedule_free_adamw, (0.3, 0.1, 0.3)),
    "shampoo": (optim.shampoo, (0.3, 1.0, 1.0)),
    "soap": (lambda lr: optim.soap(lr, weight_decay=0.0), (0.03, 0.03, 0.1)),
    "galore": (lambda lr: optim.galore(lr, rank=2, every=50, scale=1.0), (0.03, 0.1, 0.1)),
    "sam": (lambda lr: optim.sam(optim.sgd(lr, momentum=0.9), rho=0.001), (0.01, 0.003, 0.1)),
    "sophia": (lambda lr: optim.sophia(lr, weight_decay=0.0), (0.03, 0.03, 0.03)),
}

STEPS = {"lbfgs": (50, 50, 20), "soap": (300, 400, 100), "shampoo": (300, 2000, 150), "sophia": (1000, 1000, 150)}
"""Of those that need fewer updates on the three problems than the others' 1000, 2000 and 300."""

FIRST = {"soap": 3, "shampoo": 3, "galore": 3, "sophia": 3}
"""Updates after which those whose updates are dear do nothing new, where the others (RAdam) begin to in the sixth."""
