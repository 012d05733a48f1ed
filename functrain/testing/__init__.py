"""The laws that parts of a training obey, to be checked of your own.

    check_pure(f, *args), check_jit(f, *args), check_vmap(f, *args)     any function
    check_layer(model, example)                                         a layer or a model
    check_transform(transform)                                          an optimizer, or a piece of one
    check_loss(loss, prediction, target), check_metric(...)             what is measured
    check_sampler(sampler)                                              the order of the examples
    check_callback(callback, fitting, state)                            what takes part in a fit
    check_resume(fitting, state, callbacks)                             a whole run: it goes on exactly

Each returns the names of the laws that it checked, and raises `errors.LawBroken` at the first that does not hold. Those
of parts are also there one by one, such as `layer_laws(...)["rows"]()`.
"""

from functrain.testing.functions import check_jit, check_pure, check_vmap
from functrain.testing.laws import hold
from functrain.testing.layers import check_layer, layer_laws
from functrain.testing.measures import check_loss, check_metric, loss_laws, metric_laws
from functrain.testing.runs import callback_laws, check_callback, check_resume, resume_laws
from functrain.testing.samplers import check_sampler, sampler_laws
from functrain.testing.transforms import check_transform, transform_laws

__all__ = [
    "callback_laws",
    "check_callback",
    "check_jit",
    "check_layer",
    "check_loss",
    "check_metric",
    "check_pure",
    "check_resume",
    "check_sampler",
    "check_transform",
    "check_vmap",
    "hold",
    "layer_laws",
    "loss_laws",
    "metric_laws",
    "resume_laws",
    "sampler_laws",
    "transform_laws",
]


def __dir__() -> list[str]:
    return __all__
