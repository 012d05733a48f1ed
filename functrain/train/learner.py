"""The learner: what to train, and by which loss, optimizer and metrics. It is storage, with no logic."""

from collections.abc import Callable, Mapping
from typing import Any

import attrs
import torch

from functrain import foreign, schedule
from functrain.errors import DuplicateName, InvalidArgument
from functrain.metrics import Metric
from functrain.nn import Model
from functrain.optim import Transform
from functrain.records import pickling, reprs
from functrain.train.tally import check_name


def _metric_names(learner, attribute, metrics):
    if not isinstance(metrics, Mapping):
        raise InvalidArgument(
            f'{attribute.name} must be a dict by name, such as {{"accuracy": metrics.accuracy}}, got {metrics!r}'
        )
    scheduled = schedules(learner, schedule.Progress())
    for name in scheduled:
        check_name(name, "the optimizer's hyperparameters")
    for name, metric in metrics.items():
        check_name(name, attribute.name, scheduled)
        if name == "loss":
            raise DuplicateName(f"{attribute.name}: the name 'loss' is taken by the loss itself; choose another name")
        if attribute.name == "valid_metrics" and name in learner.metrics:
            raise DuplicateName(f"valid_metrics: metrics has a {name!r} too, which is measured in validation anyway")
        if not isinstance(metric, Metric):
            raise InvalidArgument(
                f"{attribute.name}[{name!r}] must be a Metric, got {type(metric).__name__}; "
                "metrics.mean(f) makes a metric of a function of (prediction, target)"
            )


def _is(kind):
    def check(_learner, attribute, value):
        if not isinstance(value, kind):
            raise InvalidArgument(f"{attribute.name} must be a {kind.__name__}, got {foreign.in_words(value)}")

    return check


def _is_callable(_learner, attribute, value):
    # A class, or a Module that averages, would only fail in the first step.
    is_module = isinstance(value, torch.nn.Module) and getattr(value, "reduction", "") != "none"
    if not callable(value) or isinstance(value, type) or is_module:
        raise InvalidArgument(
            f"{attribute.name} must be a function of (prediction, target), got {foreign.in_words(value)}"
        )


# With a dictionary of its own, in which `compiling` keeps what was traced for it.
@attrs.frozen(slots=False, repr=False)
class Learner:
    """What to train: a model, a loss, an optimizer, and metrics to watch. Frozen storage, nothing else.

    Attributes:
        model: a `nn.Model`.
        loss: (prediction, target) -> one value per target, such as `losses.cross_entropy`.
        optimizer: an `optim.Transform`.
        metrics: metrics by name; "loss" is always measured and not named here.
        valid_metrics: metrics that are measured in validation alone.

    >>> from functrain import losses, metrics, nn, optim
    >>> learner = Learner(nn.dense(10), losses.cross_entropy, optim.sgd(lr=0.1), {"accuracy": metrics.accuracy})
    >>> sorted(learner.metrics)
    ['accuracy']
    """

    model: Model = attrs.field(validator=_is(Model))
    loss: Callable[[Any, Any], Any] = attrs.field(validator=_is_callable)
    optimizer: Transform = attrs.field(validator=_is(Transform))
    metrics: Mapping[str, Metric] = attrs.field(factory=dict, validator=_metric_names)
    valid_metrics: Mapping[str, Metric] = attrs.field(factory=dict, validator=_metric_names)

    __repr__ = reprs.record
    __copy__ = __deepcopy__ = pickling.itself

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in attrs.fields(Learner)}  # not what was traced for it


def check_learner(learner: Any) -> Learner:
    """Return a learner after checking that it is one.

    >>> check_learner(3)
    Traceback (most recent call last):
        ...
    functrain.errors.InvalidArgument: learner must be a Learner of model, loss and optimizer, got 3
    """
    if not isinstance(learner, Learner):
        raise InvalidArgument(
            f"learner must be a Learner of model, loss and optimizer, got {foreign.in_words(learner)}"
        )
    return learner


def metrics_of(learner: Learner, phase: str) -> dict[str, Metric]:
    """Return the metrics that are measured in a phase, by name.

    >>> from functrain import losses, metrics, nn, optim
    >>> only = {"accuracy": metrics.accuracy}
    >>> learner = Learner(nn.dense(2), losses.cross_entropy, optim.sgd(0.1), valid_metrics=only)
    >>> list(metrics_of(learner, "train")), list(metrics_of(learner, "valid"))
    ([], ['accuracy'])
    """
    return dict(learner.metrics) if phase == "train" else {**learner.metrics, **learner.valid_metrics}


def schedules(learner: Learner, progress: Any) -> dict[str, Any]:
    """Return the hyperparameters that are schedules by name, each at its value at some progress: what varies.

    >>> from functrain import losses, nn, optim
    >>> learner = Learner(nn.dense(2), losses.cross_entropy, optim.sgd(lr=schedule.linear(0.1, 0.3), momentum=0.9))
    >>> schedules(learner, schedule.Progress(0.5))
    {'lr': 0.2}
    """
    named = _name(learner).items()
    return {name: schedule.value(hyper, progress) for name, hyper in named if isinstance(hyper, schedule.Schedule)}


def hyperparameters(learner: Learner, progress: Any = None) -> dict[str, Any]:
    """Return every hyperparameter of the optimizer and the model by name, each at its current value.

    Args:
        learner: the learner.
        progress: a `Progress`, an `optim.Context`, or None for the beginning of training.

    >>> from functrain import losses, nn, optim
    >>> model = nn.serial(nn.dropout(0.5), nn.dense(10))
    >>> learner = Learner(model, losses.cross_entropy, optim.sgd(lr=schedule.linear(0.1, 0.3)))
    >>> hyperparameters(learner, schedule.Progress(0.5))
    {'lr': 0.2, 'model.0.rate': 0.5}
    """
    at = schedule.Progress() if progress is None else progress
    return {name: schedule.value(hyper, at) for name, hyper in _name(learner).items()}


def _name(learner: Learner) -> dict[str, schedule.Hyper]:
    return {**learner.optimizer.hypers, **{f"model.{path}": hyper for path, hyper in learner.model.hypers.items()}}
