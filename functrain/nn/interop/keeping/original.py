"""The module that a model is made from: the private copy of it that is kept."""

from collections.abc import Callable
from typing import Any

import attrs
import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from functrain.engine.statics.library import is_library_class, is_library_file
from functrain.errors import InvalidArgument
from functrain.nn.interop.keeping.copying import Recipe, fresh, recipe
from functrain.nn.interop.keeping.generators import Watched, read_by
from functrain.nn.interop.keeping.leaves import Leaves, leaves_of
from functrain.nn.interop.keeping.overlapping import Places, check_apart, places_of, sharer
from functrain.nn.interop.keeping.refusing import check_module
from functrain.nn.interop.keeping.registering import Registers, registers_of
from functrain.nn.interop.keeping.walking import Walk, is_lazy_module


class Hidden:
    """Holds what no trace needs to look at: it is private, and nothing ever changes it."""

    __slots__ = ("held",)
    opaque_to_jit = True

    def __init__(self, held: Any) -> None:
        self.held = held


@attrs.frozen(eq=False)
class Kept:
    """What is kept of a module.

    Attributes:
        kind: the name of its class.
        leaves: its registered tensors.
        recipe: how it is made anew, without them.
        fixed: the other tensors on it by path, as copies; the forward may not change them.
        trains_itself: whether a class in it has a method `train` of its own.
        cumulative: the numbers of the batch norms that take the mean over all batches (`momentum=None`).
        lazy: the numbers of lazy modules, which get their shapes from the example of `init`, and their classes.
        generators: those of Python's and NumPy's that it holds or reads, which the forward may not draw from.
        registers: where modules register what they have.
        looked: whether generators were looked at, in training and in evaluation.
    """

    kind: str
    leaves: Leaves
    recipe: Recipe
    fixed: dict[str, Tensor]
    trains_itself: bool
    cumulative: list[int]
    lazy: dict[int, type]
    generators: list[Watched]
    registers: Registers
    looked: set[bool] = attrs.field(factory=set)


@attrs.frozen(eq=False)
class Original:
    """A module as a private copy; what a trace must look at again stands beside what it need not.

    Attributes:
        code: the functions and classes of the module that are no library's.
        hidden: holds `Kept`.
    """

    code: tuple[Any, ...]
    hidden: Hidden

    @property
    def kept(self) -> Kept:
        """What is kept of the module."""
        return self.hidden.held


class Stale:
    """Stands for a tensor that the module keeps beside its parameters and buffers, and that should change with them."""

    def __init__(self, why: str) -> None:
        self._why = why

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)  # Python asks when it copies and pickles, which uses no value
        raise InvalidArgument(self._why)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        """Refuse, wherever it is used."""
        held = next(arg for arg in args if isinstance(arg, Stale))
        raise InvalidArgument(held._why)


def _stale(path: str) -> str:
    return (
        f"from_module: the forward uses {path}, which the module computed from its parameters in an earlier call and "
        "kept on itself; it would not change with the parameters: pass a module that has not been called yet"
    )


def original(module: torch.nn.Module) -> Original:
    """Return a private copy of a module, to be run any number of times.

    Raises:
        InvalidArgument: it is no module, or one whose computation cannot be seen or copied.
    """
    check_module(module)
    leaves, fixed = leaves_of(module), {}
    registered = {name: tensor for name, tensor in leaves.own_tensors() if tensor is not None}
    check_apart(registered, dict(zip(leaves.names, leaves.kinds, strict=True)))
    places = places_of(registered)
    walk = _walk(module, leaves, lambda tensor, path: _fix(tensor, path, fixed, places))
    made = recipe(walk, module)
    if any(_trains_itself(part) for part in module.modules()):
        made = recipe(_walk(own := _in_training(made, leaves, module.training), leaves, _same), own)
    elif not module.training:
        _set_training(made)
    trains = any(_trains_itself(part) for part in module.modules())
    numbers = _cumulative(made, module), _lazy(made, module)
    code = tuple(filter(_is_own_code, walk.functions.values()))
    generators = [*walk.generators.values(), *read_by(code)]
    kept = Kept(type(module).__name__, leaves, made, fixed, trains, *numbers, generators, registers_of(made))
    return Original(code, Hidden(kept))


def _lazy(made: Recipe, module: torch.nn.Module) -> dict[int, type]:
    return {made.modules[path]: type(part) for path, part in module.named_modules() if is_lazy_module(part)}


def _walk(module: torch.nn.Module, leaves: Leaves, fix: Callable[[Tensor, str], Any]) -> Walk:
    numbers = {i: leaves.names.index(name) for i, (_, name) in leaves.originals.items()}
    numbers |= {id(tensor): number for number, tensor in enumerate(leaves.own)}
    return Walk(module, lambda tensor: numbers.get(id(tensor)), fix)


def _same(tensor: Tensor, path: str) -> Tensor:
    return tensor


def _fix(tensor: Tensor, path: str, fixed: dict[str, Tensor], places: Places) -> Any:
    if tensor.requires_grad and not tensor.is_leaf:
        return Stale(_stale(path))
    if tensor.requires_grad:
        raise InvalidArgument(
            f"from_module: {path} requires gradients and is not registered, so no optimizer would train it; make it "
            "an nn.Parameter set as an attribute, or put it in an nn.ParameterList or nn.ParameterDict"
        )
    whole = sharer(tensor, places)
    if whole is not None:
        return Stale(
            f"from_module: the forward uses {path}, which shares memory with {whole}, and would not change with it; "
            "compute it in the forward, or let it be a clone()"
        )
    fixed[path] = copy = tensor.detach().clone()
    return copy


def _trains_itself(part: torch.nn.Module) -> bool:
    return type(part).train is not torch.nn.Module.train or type(part).eval is not torch.nn.Module.eval


def _in_training(made: Recipe, leaves: Leaves, training: bool) -> torch.nn.Module:
    """Return a copy that went through its own `train()`, which may drop what it kept; flags stay if it had any."""
    things, _ = fresh(made, leaves.own, train=True)
    parts = [things[number] for number in made.modules.values()]
    flags = [part.training for part in parts]
    with torch.no_grad():
        parts[0].train(True)
    for part, flag in zip(parts, flags, strict=True):
        if training:
            part.training = flag
    return parts[0]


def _set_training(made: Recipe) -> None:
    numbers = set(made.modules.values())
    for number, _, own in [*made.objects, *made.others]:
        if number in numbers:
            own["training"] = True


def _cumulative(made: Recipe, module: torch.nn.Module) -> list[int]:
    """Return the numbers of the batch norms whose momentum is None."""
    return [
        made.modules[path]
        for path, part in module.named_modules()
        if isinstance(part, _BatchNorm) and part.momentum is None and type(part).forward is _BatchNorm.forward
    ]


def _is_own_code(code: Any) -> bool:
    if isinstance(code, type):
        return not is_library_class(code)
    return not is_library_file(code.__code__.co_filename) or code.__closure__ is not None
