"""Putting a part of what was saved into another structure, with a report of what became of each leaf."""

from collections.abc import Mapping
from typing import Any

import attrs
from torch import Tensor

from functrain.checkpoint.saved import Saved, check_saved
from functrain.checkpoint.structures import PATTERNS, Static, difference, rebuild
from functrain.errors import InvalidArgument


@attrs.frozen(repr=False)
class Report:
    """What became of each leaf in a `migrate`.

    Attributes:
        taken: the paths of the leaves that came from the file, with the path there.
        kept: the paths of the leaves that the file has not, and that stayed as they were.
        differing: the paths of the leaves that stayed because the file has others there -> how they differ.
        surplus: the paths in the file that were not used.
    """

    taken: Mapping[str, str]
    kept: tuple[str, ...]
    differing: Mapping[str, str]
    surplus: tuple[str, ...]

    def __repr__(self) -> str:
        moved = {path: there for path, there in self.taken.items() if path != there}
        lines = [f"taken: {len(self.taken)}" + (f", {len(moved)} of them under another path" if moved else "")]
        lines += [f"  {path}: from {there}" for path, there in moved.items()]
        lines += [f"kept: {len(self.kept)}", *(f"  {path}" for path in self.kept)]
        lines += [f"differing: {len(self.differing)}", *(f"  {path}: {why}" for path, why in self.differing.items())]
        return "\n".join([*lines, f"surplus: {len(self.surplus)}", *(f"  {path}" for path in self.surplus)])


def migrate(
    saved: Saved, like: Any, *, paths: Mapping[str, str] | None = None, cast: bool = False
) -> tuple[Any, Report]:
    """Return `like` with each leaf replaced that what was saved has too, and a report of what became of each leaf.

    A leaf is replaced by one of the same path, type, dtype and shape; every other stays as it is in `like`.

    Args:
        saved: what `restore` returned.
        like: the value to start from, such as the state of a changed model.
        paths: where a leaf, or everything below a path, has another path in the file: path in `like` -> path there. The
            longest that fits counts.
        cast: whether floating-point tensors of another dtype are converted.

    Raises:
        InvalidArgument: a path of `paths` is none of `like`, or something in `like` is no data.

    >>> import tempfile
    >>> from functrain import checkpoint
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     checkpoint.save(f"{folder}/a.safetensors", {"body": {"w": 1.0}, "old": 2})
    ...     saved = checkpoint.restore(f"{folder}/a.safetensors")
    >>> value, report = migrate(saved, {"encoder": {"w": 0.0}, "head": 3.0}, paths={"encoder": "body"})
    >>> value
    {'encoder': {'w': 1.0}, 'head': 3.0}
    >>> report
    taken: 1, 1 of them under another path
      encoder.w: from body.w
    kept: 1
      head
    differing: 0
    surplus: 1
      old
    """
    check_saved(saved, "saved")
    moving = _Moving(saved, dict(paths or {}), cast)
    value = rebuild(like, moving.leaf)
    unused = [path for path in moving.paths if path not in moving.met]
    if unused:
        raise InvalidArgument(f"paths: {unused[0]!r} is no path of `like`")
    used = set(moving.taken.values())
    surplus = tuple(path for path in saved.leaves if path not in used)
    return value, Report(moving.taken, tuple(moving.kept), moving.differing, surplus)


@attrs.frozen
class _Moving:
    saved: Saved
    paths: Mapping[str, str]
    cast: bool
    taken: dict[str, str] = attrs.field(factory=dict)
    kept: list[str] = attrs.field(factory=list)
    differing: dict[str, str] = attrs.field(factory=dict)
    met: set[str] = attrs.field(factory=set)

    def leaf(self, path: str, like: Any) -> Any:
        """Return what shall stand at a path."""
        if isinstance(like, PATTERNS):
            raise InvalidArgument(f"like: {path} is a {type(like).__name__}, for `restore` alone; put a value there")
        if isinstance(like, Static):
            return like.value
        there = self._there(path)
        if there not in self.saved.leaves:
            self.kept.append(path)
            return like
        return self._take(path, there, like)

    def _there(self, path: str) -> str:
        above = [start for start in self.paths if path == start or path.startswith(f"{start}.") or not start]
        self.met.update(above)
        if not above:
            return path
        start = max(above, key=len)
        rest = path[len(start) :].removeprefix(".")
        return ".".join(part for part in (self.paths[start], rest) if part)

    def _take(self, path: str, there: str, like: Any) -> Any:
        value = self.saved.leaves[there]
        if self.cast and _differ_in_precision(value, like):
            value = value.to(like.dtype)
        line = difference(like, value)
        if line is not None:
            self.differing[path] = line if there == path else f"{line} at {there}"
            return like
        self.taken[path] = there
        return value.to(like.device) if isinstance(value, Tensor) and like.device.type != "meta" else value


def _differ_in_precision(value: Any, like: Any) -> bool:
    both = isinstance(value, Tensor) and isinstance(like, Tensor)
    return both and value.is_floating_point() and like.is_floating_point() and value.dtype != like.dtype
