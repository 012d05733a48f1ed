"""The application of a module: fresh copy, draws from keys, buffers as values."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from functrain import tree
from functrain.dispatch_state import is_transformed
from functrain.errors import TreeMismatch
from functrain.nn.interop.keeping.copying import fresh
from functrain.nn.interop.keeping.leaves import BUFFER, gather, spread
from functrain.nn.interop.keeping.original import Kept
from functrain.nn.interop.keeping.registering import check_registers
from functrain.nn.interop.rules.checkpoints import redirect
from functrain.nn.interop.rules.generators import check_generators, generator_states
from functrain.nn.interop.rules.norms import cumulative
from functrain.nn.interop.rules.running import Running
from functrain.nn.mode import Mode
from functrain.nn.model import Buffers, Params
from functrain.nn.observing import is_observed, note_entry, note_return


class Application:
    """A module as it runs once.

    Args:
        kept: what is kept of the module.
        params: its parameters.
        buffers: its buffers.
        mode: how it is applied.

    Attributes:
        kept: what is kept of the module.
        module: the fresh copy.
        run: the mode in which it runs.
        passed: the values by number, as they were passed in.
        values: the values that it was made with; buffers as copies, which it may write to.
        parts: for each thing that was made the dict or list that holds its parts.
    """

    def __init__(self, kept: Kept, params: Params, buffers: Buffers, mode: Mode) -> None:
        self.kept, self._buffers = kept, buffers
        self.passed = gather(kept.leaves, params, buffers)
        self.values = [
            v.clone() if kind == BUFFER else v for v, kind in zip(self.passed, kept.leaves.kinds, strict=True)
        ]
        things, self.parts = fresh(kept.recipe, self.values, mode.train)
        self.module = things[0]
        paths = {id(things[number]): path for path, number in kept.recipe.modules.items()}
        self.run = Running(mode, paths, self._originals())
        for owner, key, number in kept.recipe.slots:
            if kept.leaves.kinds[number] == BUFFER:
                self.run.slots.setdefault(id(self.values[number]), []).append((self.parts[owner], key))
        for number in kept.cumulative:
            self.parts[number]["forward"] = functools.partial(cumulative, things[number])
        self._guard()
        if is_observed():
            self._show()

    def _show(self) -> None:
        """Let observers see what each submodule returns."""
        base = self.run.mode.path
        for path, number in self.kept.recipe.modules.items():
            if path:
                names = (*base, *path.split("."))
                before = {-1: lambda module, args, names=names: note_entry(names)}
                after = {-1: lambda module, args, y, names=names: note_return(names, module, y)}
                own = self.parts[number]
                own["_forward_pre_hooks"] = {**own["_forward_pre_hooks"], **before}
                own["_forward_hooks"] = {**own["_forward_hooks"], **after}

    def _originals(self) -> dict[int, Any]:
        # The module's own tensors may be what the model is applied to.
        originals = self.kept.leaves.originals
        met = [id(v) for v in self.passed if id(v) in originals]
        return {i: o for i, o in originals.items() if i not in met} if met else originals

    def _guard(self) -> None:
        guarded, values = self.run.guarded, self.values
        guarded += [(name, values[number]) for name, number in self.kept.leaves.unchanging]
        guarded += [(f"{name}, a tensor that is no buffer,", tensor) for name, tensor in self.kept.fixed.items()]

    def guard_input(self, x: Any) -> None:
        """Forbid the module to write to its input."""
        if isinstance(x, Tensor):  # without a walk of 2 microseconds
            self.run.guarded.append(("its input", x))
            return
        self.run.guarded += [
            (f"its input{f' {path}' if path else ''}", leaf)
            for path, leaf in tree.leaves_with_path(x)
            if isinstance(leaf, Tensor)
        ]

    def call(self, f: Callable[[torch.nn.Module], Any]) -> Any:
        """Return f(module), in the mode in which draws come from the key."""
        first = self.run.mode.train not in self.kept.looked
        self.kept.looked.add(self.run.mode.train)
        states = generator_states(first, self.kept.generators)
        with redirect(self), self.run:
            if self.kept.trains_itself and not self.run.mode.train:
                with torch.no_grad():
                    self.module.train(False)
            y = f(self.module)
        self.run.is_over = True
        check_generators(states)
        return y

    def buffers(self) -> Buffers:
        """Return the buffers as they are after the call; those that nobody wrote to are the ones passed in."""
        after = list(self.passed)
        check_registers(self.kept.registers, self.parts)
        held = self._own_tensors()
        changed = False
        for number, now in held.items():
            before = self.values[number]
            if now is before and not is_transformed() and not now._version and id(now) not in self.run.touched:
                continue
            after[number], changed = now.detach(), True
        return spread(self.kept.leaves.buffers, after) if changed else self._buffers

    def _own_tensors(self) -> dict[int, Tensor]:
        parts, values, held = self.parts, self.values, {}
        names, kinds = self.kept.leaves.names, self.kept.leaves.kinds
        for owner, key, number in self.kept.recipe.slots:  # at each application, so no function for a slot
            try:
                now = parts[owner][key]
            except (KeyError, IndexError):
                now = None
            if kinds[number] != BUFFER:
                if now is not values[number]:
                    raise _replace(kinds[number] if isinstance(now, Tensor) else "buffer or parameter", names[number])
            elif not isinstance(now, Tensor):
                raise _replace("buffer or parameter", names[number])
            elif held.setdefault(number, now) is not now:
                held[number] = self._buffer_of(number)
        return held

    def _buffer_of(self, number: int) -> Tensor:
        """Return the value of a buffer that several places hold, of which the forward has replaced some."""
        slots = [(owner, self.parts[owner][key]) for owner, key, at in self.kept.recipe.slots if at == number]
        value = next(value for owner, value in slots if owner in self.kept.registers.owners)
        others = [(owner, other) for owner, other in slots if other is not value]
        if value is not self.values[number] or any(owner in self.kept.registers.owners for owner, _ in others):
            raise TreeMismatch(
                f"from_module: the forward replaces the buffer {self.kept.leaves.names[number]}, which the module "
                "holds in another place too, where it stays the old one; write the new value in place (copy_), or let "
                "the other place hold a clone()"
            )
        return value


def _replace(kind: str, name: str) -> TreeMismatch:
    return TreeMismatch(
        f"from_module: the forward removes the {kind} {name}, or puts something else in its place; compute with a "
        "local value instead"
    )
