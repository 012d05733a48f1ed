"""Random pure programs of tensor operations, views and in-place writes, as data: they are run, printed and shrunk.

All values are small integers, whatever their dtype, so that no order of operations rounds: results are equal or wrong.
"""

import random
from collections.abc import Callable, Iterator, Sequence

import attrs
import torch
from torch import Tensor

LIMITS = {torch.bfloat16: 64, torch.float16: 256, torch.float32: 256, torch.bool: 1}
"""The largest value of each dtype with which products and their sums are exact; 256 for those not named."""
LARGEST = 1 << 16
"""The largest number of elements of a value."""


@attrs.frozen
class Step:
    """One operation: its name, and the positions of its operands among the values so far."""

    name: str
    operands: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name}({', '.join(f'v{k}' for k in self.operands)})"


@attrs.frozen
class Program:
    """Inputs, steps and which values are returned.

    Attributes:
        inputs: the kind and the seed of each input.
        closed: the positions of the inputs that are closed over; the others are arguments.
        donated: the positions of the inputs that are donated.
        steps: in order; each adds its results to the values, or writes to one and adds nothing.
        results: the positions of the values that are returned.
    """

    inputs: tuple[tuple[str, int], ...]
    closed: frozenset[int]
    donated: frozenset[int]
    steps: tuple[Step, ...]
    results: tuple[int, ...]

    def __str__(self) -> str:
        lines = [f"v{k} = {name}" for k, (name, _) in enumerate(self.inputs)]
        lines += [str(step) for step in self.steps]
        lines.append(f"return {', '.join(f'v{k}' for k in self.results)}")
        return "\n".join([*lines, f"closed over {sorted(self.closed)}, donated {sorted(self.donated)}"])


def integers(shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return small integers."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-3, 4, shape, generator=generator).to(dtype)


INPUTS: dict[str, Callable[[int], Tensor]] = {
    "matrix": lambda s: integers((4, 4), s),
    "matrix.t()": lambda s: integers((4, 4), s).t(),
    "vector": lambda s: integers((4,), s),
    "scalar": lambda s: integers((), s),
    "int": lambda s: integers((4, 4), s, torch.int64),
    "bool": lambda s: integers((4, 4), s) > 0,
    "double": lambda s: integers((4, 4), s, torch.float64),
    "bfloat16": lambda s: integers((4, 4), s, torch.bfloat16),
    "complex": lambda s: torch.complex(integers((4, 4), s), integers((4, 4), s + 1)),
    "columns": lambda s: integers((4, 8), s)[:, 1:5],
    "offset": lambda s: integers((17,), s)[1:].view(4, 4),
    "expanded": lambda s: integers((4,), s).expand(4, 4),
    "large": lambda s: integers((132, 132), s),
    "cube": lambda s: integers((2, 4, 4), s),
    "empty": lambda s: integers((0, 4), s),
}
"""Name of a kind of input -> seed -> the tensor."""

POINTWISE: dict[str, Callable] = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "x+2y": lambda x, y: x + 2 * y,
    "x-y*3": lambda x, y: x - y * 3,
    "neg": lambda x: -x,
    "abs": torch.abs,
    "x*2": lambda x: x * 2,
    "2-x": lambda x: 2 - x,
    "square": torch.square,
    "relu": torch.relu,
    "clamp": lambda x: x.clamp(-2, 2),
    "sign": torch.sign,
    "maximum": torch.maximum,
    "where": lambda x, y: torch.where(x > y, x, y),
    "gt": torch.gt,
    "masked_fill": lambda x, y: x.masked_fill(y > 0, 1),
    "addcmul": lambda x, y, z: torch.addcmul(x, y, z),
    "logical_not": torch.logical_not,
    "conj": lambda x: x.conj(),
    "imag": lambda x: x.conj().imag,
    "float": lambda x: x.float(),
    "double": lambda x: x.double(),
    "long": lambda x: x.long(),
    "bfloat16": lambda x: x.bfloat16(),
    "bool": lambda x: x.bool(),
}
OTHERS: dict[str, Callable] = {
    "mm": lambda x, y: _product(x, y),
    "x+y@z": lambda x, y, z: x + _product(y, z),
    "sum": lambda x: x.sum(),
    "sum0": lambda x: x.sum(0),
    "sum(None, keepdim)": lambda x: x.sum(None, keepdim=True),
    "sum-1k": lambda x: x.sum(-1, keepdim=True),
    "amax": lambda x: x.amax(-1),
    "max": lambda x: torch.max(x, 0),
    "cumsum": lambda x: x.cumsum(0),
    "cat": lambda x, y: torch.cat([x, y]),
    "cat3": lambda x, y: torch.cat([x, y, x], -1)[..., :4],
    "stack": lambda x, y: torch.stack([x, y], 1)[:, 0],
    "clone": torch.clone,
    "contiguous": lambda x: x.contiguous(),
    "zeros_like": torch.zeros_like,
    "ones": lambda x: torch.ones(4, 4),
    "literal": lambda x: torch.tensor([1.0, 2.0, 3.0, 4.0]),
    "new_zeros": lambda x: x.new_zeros(4, 4),
    "index": lambda x: x[torch.tensor([1, 0, 1])],
    "take_rows": lambda x, y: x[(y.flatten()[:2].long() % x.shape[0])],
    "gather": lambda x: x.gather(0, torch.zeros_like(x, dtype=torch.long)),
    "flip": lambda x: x.flip(0),
    "roll": lambda x: x.roll(1, 0),
    "tril": torch.tril,
    "sort": lambda x: torch.sort(x, 0),
    "repeat": lambda x: x.repeat(*[1] * (x.dim() - 1), 2)[..., 2:6],
    "diag_embed": lambda x: torch.diag_embed(x.diagonal(dim1=-2, dim2=-1)),
    "index_add": lambda x, y: x.index_add(0, torch.tensor([0, 0, 1, 1]), y),
}
VIEWS: dict[str, Callable] = {
    "t": lambda x: x.t(),
    "transpose": lambda x: x.transpose(-2, -1),
    "[0]": lambda x: x[0],
    "[1:]": lambda x: x[1:],
    "[..., ::2]": lambda x: x[..., ::2],
    "[:, 1]": lambda x: x[:, 1],
    "diagonal": lambda x: x.diagonal(),
    "narrow": lambda x: x.narrow(-1, 1, 2),
    "unsqueeze": lambda x: x.unsqueeze(0),
    "squeeze": lambda x: x.squeeze(),
    "view": lambda x: x.view(-1),
    "view(2, -1)": lambda x: x.view(2, -1),
    "reshape": lambda x: x.reshape(4, -1),
    "flatten": lambda x: x.flatten(),
    "expand": lambda x: x.expand(4, *x.shape),
    "chunk": lambda x: x.chunk(2, -1),
    "unbind": lambda x: x.unbind(0)[:2],
    "split": lambda x: x.split([1, x.shape[0] - 1]),
    "movedim": lambda x: x.movedim(0, -1),
    "unfold": lambda x: x.unfold(-1, 2, 2),
    "view_as_real": torch.view_as_real,
    "view_as_complex": lambda x: torch.view_as_complex(x.view(-1, 2)),
    "real": lambda x: x.real,
    "as_strided": lambda x: x.as_strided((2, 2), (2, 1)),
    "as_strided at 1": lambda x: x.as_strided((2, 2), (1, 1), 1),
    "detach": lambda x: x.detach(),
    "to": lambda x: x.to(x.dtype),
    "transposed twice": lambda x: x.transpose(-2, -1).transpose(-2, -1),
}
WRITES: dict[str, Callable] = {
    "add_": lambda x, y: x.add_(y),
    "sub_": lambda x, y: x.sub_(y, alpha=2),
    "mul_": lambda x, y: x.mul_(y),
    "mul_(2)": lambda x, y: x.mul_(2),
    "zero_": lambda x, y: x.zero_(),
    "fill_": lambda x, y: x.fill_(y.sum()),
    "copy_": lambda x, y: x.copy_(y),
    "clamp_": lambda x, y: x.clamp_(-1, 1),
    "relu_": lambda x, y: x.relu_(),
    "[0]=": lambda x, y: x.__setitem__(0, y),
    "[:, 1]=": lambda x, y: x.__setitem__((slice(None), 1), y),
    "[mask]=": lambda x, y: _apart(x).__setitem__(_mask(y), 1),
    "[index]=": lambda x, y: _apart(x).__setitem__(torch.tensor([1, 0]), y),
    "[1:]+=": lambda x, y: x[1:].add_(y[:-1]),
    "swap": lambda x, y: x[:2].copy_(x[[1, 0]]),
    "masked_fill_": lambda x, y: x.masked_fill_(y > 0, 2),
    "index_put_": lambda x, y: _apart(x).index_put_((torch.tensor([0, 0]),), y, accumulate=True),
    "index_add_": lambda x, y: x.index_add_(0, torch.tensor([1, 1, 0, 0]), y),
    "scatter_": lambda x, y: x.scatter_(0, torch.zeros_like(y, dtype=torch.long)[:1], y),
    "fill_diagonal_": lambda x, y: x.fill_diagonal_(1),
    "addmm_": lambda x, y: x.addmm_(y, y),
    "addcmul_": lambda x, y: x.addcmul_(y, y),
    "lerp_": lambda x, y: x.lerp_(y, 2),
    "foreach_add_": lambda x, y: torch._foreach_add_(list(x.unbind(0)), 1),
    "foreach_mul_": lambda x, y: torch._foreach_mul_([x, y.clone()], 2),
    "add out=": lambda x, y: torch.add(y, 1, out=_like(x, y)),
    "mm out=": lambda x, y: torch.mm(y, y, out=_like(x, y)),
    "cumsum_": lambda x, y: x.cumsum_(0),
    "tril_": lambda x, y: x.tril_(),
    "t_": lambda x, y: x.t_(),
    "unsqueeze_": lambda x, y: x.unsqueeze_(0),
    "logical_not_": lambda x, y: x.logical_not_(),
    "gt_": lambda x, y: x.gt_(y),
}
OPERATIONS = {**POINTWISE, **OTHERS, **VIEWS, **WRITES}


def _product(x: Tensor, y: Tensor) -> Tensor:
    if x.dtype is torch.bool:
        raise TypeError("there is no product of these")
    return x @ y


def _mask(y: Tensor) -> Tensor:
    if y.dim() == 0:
        raise IndexError("Python looks at a mask of no axes, which a trace refuses")
    return y > 0


def _like(x: Tensor, y: Tensor) -> Tensor:
    if x.shape != y.shape:
        raise ValueError("it would be given other memory, which a trace refuses")
    return x


def _apart(x: Tensor) -> Tensor:
    if 0 in x.stride():
        raise ValueError("its elements share memory, of which PyTorch warns")
    return x


def made(program: Program) -> list[Tensor]:
    """Return new inputs."""
    return [INPUTS[name](seed) for name, seed in program.inputs]


def run(program: Program, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Run a program and return its results."""
    values = list(inputs)
    for step in program.steps:
        values += _apply(step, values)
    return [values[k] for k in program.results]


def _apply(step: Step, values: list[Tensor]) -> list[Tensor]:
    out = OPERATIONS[step.name](*(values[k] for k in step.operands))
    return [] if step.name in WRITES else [out] if isinstance(out, Tensor) else list(out)


def generated(seed: int, most: int = 16) -> Program:
    """Return the random program of a seed."""
    rng = random.Random(seed)
    kinds = [*INPUTS, "matrix", "matrix", "large"]
    inputs = tuple((rng.choice(kinds), rng.randrange(100)) for _ in range(rng.randint(1, 4)))
    closed = frozenset(k for k in range(1, len(inputs)) if rng.random() < 0.25)
    donated = frozenset(k for k in range(len(inputs)) if k not in closed and rng.random() < 0.4)
    start = Program(inputs, closed, donated, (), ())
    steps, values = _steps(rng, made(start), rng.randint(3, most))
    computed = range(len(inputs), len(values)) or range(len(inputs))
    results = (rng.choice(computed if rng.random() < 0.7 else range(len(values))) for _ in range(rng.randint(1, 4)))
    return attrs.evolve(start, steps=tuple(steps), results=tuple(results))


def _steps(rng: random.Random, inputs: list[Tensor], count: int) -> tuple[list[Step], list[Tensor]]:
    """Return steps that eager runs, and the values after them."""
    foreign = {t.untyped_storage()._cdata for t in inputs}
    values, steps = list(inputs), []
    for _ in range(20 * count):
        step = _drawn(rng, values, foreign)
        if step is not None and _fits(step, values):
            steps.append(step)
        if len(steps) == count:
            break
    return steps, values


def _drawn(rng: random.Random, values: list[Tensor], foreign: set[int]) -> Step | None:
    """Return a step that may fit, mostly of recent values; None where it would write to an input."""
    table = rng.choice([POINTWISE, POINTWISE, OTHERS, VIEWS, WRITES, WRITES])
    name = rng.choice(list(table))
    chosen = [max(0, len(values) - rng.randint(1, 5)), rng.randrange(len(values)), rng.randrange(len(values))]
    rng.shuffle(chosen)
    if table is WRITES and values[chosen[0]].untyped_storage()._cdata in foreign:
        return None
    operands = chosen[: _operand_count(name)]
    if _drops_imaginary(table, name, [values[k] for k in operands]):
        return None
    return Step(name, tuple(operands))


def _drops_imaginary(table: dict, name: str, operands: list[Tensor]) -> bool:
    """Return whether PyTorch may warn that only the real part of a complex tensor is kept."""
    are_complex = [t.is_complex() for t in operands]
    if name in ("float", "double", "long", "bfloat16", "bool"):
        return are_complex[0]
    if name == "take_rows":
        return are_complex[1]
    return table is not VIEWS and any(are_complex) and not all(are_complex)


def _operand_count(name: str) -> int:
    code = getattr(OPERATIONS[name], "__code__", None)
    return code.co_argcount if code is not None else 2 if name in ("maximum", "gt") else 1


def _fits(step: Step, values: list[Tensor]) -> bool:
    """Add the results of a step to the values, where eager runs it and they stay small; a write is undone else."""
    target = values[step.operands[0]]
    shape = target.size(), target.stride(), target.storage_offset()
    whole = torch.empty(0, dtype=torch.uint8).set_(target.untyped_storage())
    before = whole.clone()
    try:
        new = _apply(step, values)
        if all(map(_is_small, (*new, target))):
            values += new
            return True
    except (RuntimeError, IndexError, ValueError, TypeError):
        pass
    if step.name in WRITES:
        whole.copy_(before)
        target.as_strided_(*shape)
    return False


def _is_small(t: Tensor) -> bool:
    if t.numel() > LARGEST or t.dim() > 4:
        return False
    return t.numel() == 0 or t.dtype is torch.bool or float(t.abs().max()) <= LIMITS.get(t.dtype, 256)


def shrunk(program: Program, fails: Callable[[Program], bool]) -> Program:
    """Return the smallest program found that still fails, with steps and results left out one by one."""
    smaller = True
    while smaller:
        smaller = False
        for candidate in _candidates(program):
            if fails(candidate):
                program, smaller = candidate, True
                break
    return program


def _candidates(program: Program) -> Iterator[Program]:
    for k in range(len(program.results)):
        if len(program.results) > 1:
            yield attrs.evolve(program, results=(*program.results[:k], *program.results[k + 1 :]))
    for field in ("donated", "closed"):
        for k in getattr(program, field):
            yield attrs.evolve(program, **{field: getattr(program, field) - {k}})
    for k in reversed(range(len(program.steps))):
        without = _without(program, k)
        if without is not None:
            yield without


def _without(program: Program, k: int) -> Program | None:
    """Return the program without one step, or None where its results are read."""
    counts, values = [], made(program)
    for step in program.steps:
        before = len(values)
        try:
            values += _apply(step, values)
        except Exception:
            return None
        counts.append((before, len(values) - before))
    start, count = counts[k]
    readers = [n for s in program.steps[k + 1 :] for n in s.operands] + list(program.results)
    if any(start <= n < start + count for n in readers):
        return None

    def moved(n: int) -> int:
        return n - count if n >= start + count else n

    rest = tuple(Step(s.name, tuple(map(moved, s.operands))) for s in program.steps[k + 1 :])
    return attrs.evolve(program, steps=(*program.steps[:k], *rest), results=tuple(map(moved, program.results)))
