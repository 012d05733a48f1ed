"""What PyTorch refuses under `vmap`, in functrain's words with the remedy."""

import re

from functrain.errors import FunctrainError, InvalidArgument, NotTraceable, SideEffect


def refuse_mapped(error: RuntimeError) -> None:
    """Raise in functrain's words what PyTorch refuses under `vmap` in its own, where it says so.

    >>> refuse_mapped(RuntimeError("something else"))
    """
    for pattern, kind, words in _REFUSED:
        seen = pattern.search(str(error))
        if seen:
            raise kind(f"vmap: {words.format(*seen.groups())}") from error


_ANEW = (
    "writes what differs by row into a tensor that all rows share; make that tensor of one of the row, as "
    "x.new_zeros(shape), or use what returns a new one, as index_put, scatter or torch.where"
)
_RAGGED = (
    "the shape of a result depends on values, of which each row has others, as in x[mask], nonzero or masked_select; "
    "keep all elements and choose with torch.where: torch.where(mask, x + 1, x) for x[mask] += 1"
)
_ASKED = (
    "Python looks at the values of a tensor, of which each row has others; choose with torch.where(condition, a, b), "
    "with cond or with while_loop"
)
_NO_RULE = r"not implemented for (?:aten::)?"
_REFUSED: tuple[tuple[re.Pattern, type[FunctrainError], str], ...] = (
    (re.compile(r"vmap: (?:aten::)?([\w ]+)\(self, \*extra_args\) is not possible"), SideEffect, "{} " + _ANEW),
    (re.compile("vmap: .*(?:dynamic shape|torch.masked_select)"), NotTraceable, _RAGGED),
    (re.compile(r"vmap: .*(?:data-dependent control flow|\.item\(\) on a Tensor)"), NotTraceable, _ASKED),
    (
        re.compile(r"output with shape \[(.*)\] doesn't match the broadcast shape \[\d+(?:, )?\1\]"),
        SideEffect,
        "an operation in place " + _ANEW,
    ),
    (
        re.compile(_NO_RULE + r"(\w+)\.\w*out;"),
        InvalidArgument,
        "{} is called with out=, which has no meaning for a row; use what the function returns",
    ),
    (
        re.compile(_NO_RULE + r"_(?:un)?(make|pack)_dual;"),
        InvalidArgument,
        "PyTorch can {} no dual numbers inside; take the derivative by functrain's jvp",
    ),
)
"""What PyTorch says, and what is said instead."""
