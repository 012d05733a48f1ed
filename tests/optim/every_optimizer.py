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
    "lbfgs": (optim.lbfgs, (1.0, 1.0, 1.0)),
}
