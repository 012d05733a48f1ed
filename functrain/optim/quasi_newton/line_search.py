"""How far to go in a direction: a line search to the strong conditions of Wolfe."""

from typing import Any

import torch
from torch import Tensor

from functrain import arguments, schedule, tree
from functrain.engine import while_loop
from functrain.errors import InvalidArgument
from functrain.optim.context import Context
from functrain.optim.counting import has_updated
from functrain.optim.hypers import check_fixed, nonnegative
from functrain.optim.quasi_newton.vectors import ravel, unravel
from functrain.optim.transform import Transform, check_transform
from functrain.optim.wrappers.accumulation import refuse_sums
from functrain.schedule import Hyper
from functrain.schedule.hyper import is_number

BRACKETING, ZOOMING, DONE = 0, 1, 2


@tree.node
class Point:
    """A point on the line: its place t, the loss there and its slope, float64 scalars."""

    t: Tensor
    loss: Tensor
    slope: Tensor


@tree.node
class Search:
    """A line search under way.

    Attributes:
        phase: BRACKETING, ZOOMING or DONE, an int64 scalar.
        tried: the points tried after the first one, an int64 scalar.
        t: the next place to try.
        before: while bracketing, the point before.
        low: the end of the bracket with the lower loss.
        high: the other end.
        stuck: whether the last place was close to an end of the bracket.
    """

    phase: Tensor
    tried: Tensor
    t: Tensor
    before: Point
    low: Point
    high: Point
    stuck: Tensor


def strong_wolfe(
    transform: Transform,
    lr: Hyper = 1.0,
    max_steps: int = 25,
    c1: float = 1e-4,
    c2: float = 0.9,
    tolerance: float = 1e-9,
) -> Transform:
    """Return the transform that goes as far along another one's updates as lowers the loss of this batch enough.

    With the direction d, the loss f and its slope f' along d, it looks for t with f(t) <= f(0) + c1 t f'(0) and
    |f'(t)| <= c2 |f'(0)|, first for a bracket around such a t, and then inside by cubic interpolation (Nocedal and
    Wright, 2006, algorithms 3.5 and 3.6; as torch.optim.LBFGS does). Where the loss is not finite, it is too far. Where
    the direction does not descend, the update is 0. It needs the loss and `Context.evaluate`, and calls the latter once
    or more.

    Args:
        transform: what makes the direction of a gradient, such as `scale_by_lbfgs()`; it is gone along downwards.
        lr: the first t that is tried; the hyperparameter "lr".
        max_steps: how many more are tried at most.
        c1: in (0, c2), how much lower the loss must be.
        c2: in (c1, 1), how flat the loss must be.
        tolerance: how small a bracket, or a slope, ends the search.

    Returns:
        A `Transform`, whose state is the other one's.

    Raises:
        InvalidArgument: a number is out of range. In `init`, the transform accumulates.

    >>> from functrain import optim
    >>> def evaluate(params):
    ...     return 2 * (params["w"] ** 2).sum(), {"w": 4 * params["w"]}
    >>> search, params = strong_wolfe(optim.identity), {"w": torch.tensor([3.0])}
    >>> loss, grads = evaluate(params)
    >>> search.update(grads, (), params, optim.Context(loss=loss, evaluate=evaluate))[0]
    {'w': tensor([-3.])}
    """
    check_transform(transform)
    arguments.whole("max_steps", max_steps)
    check_fixed(tolerance=tolerance)
    if not (is_number(c1) and is_number(c2) and 0 < c1 < c2 < 1):
        raise InvalidArgument(f"c1 and c2 must be numbers with 0 < c1 < c2 < 1, got {c1!r} and {c2!r}")

    def update(updates: Any, state: Any, params: Any, context: Context) -> tuple[Any, Any]:
        direction, after = transform.update(updates, state, params, context)
        line = _Line(context, params, -ravel(direction), ravel(updates), c1, c2, max_steps, tolerance)
        t = line.search(schedule.value(lr, context))
        changed = unravel((t * line.d.double()).to(line.d.dtype), updates)
        happened = has_updated(transform, state, after)
        if happened is not None:  # the slope along no direction is NaN where the gradient is
            changed = tree.map(lambda u: torch.where(happened, u, torch.zeros_like(u)), changed)
        return changed, after

    def init(params: Any) -> Any:
        state = transform.init(params)
        refuse_sums(
            state,
            f"strong_wolfe: {transform!r} makes a direction of several batches, and the loss along it would be that of "
            "the last one; load larger batches instead",
        )
        return state

    return Transform(
        init,
        update,
        {**transform.hypers, **nonnegative(lr=lr)},
        made=transform.made,
        needs=(*transform.needs, "evaluate", "loss"),
        label=lambda: f"strong_wolfe({transform!r})",
        pieces=transform,
    )


class _Line:
    """The loss along a direction, and the rules by which a search goes on."""

    def __init__(
        self, context: Context, params: Any, d: Tensor, g: Tensor, c1: float, c2: float, most: int, tolerance: float
    ) -> None:
        self.evaluate, self.params, self.p, self.d = context.evaluate, params, ravel(params), d
        self.c1, self.c2, self.most, self.tolerance = c1, c2, most, tolerance
        zero = torch.zeros((), dtype=torch.float64, device=d.device)
        self.start = Point(zero, zero + context.loss, _dot(g, d))  # pyright: ignore
        self.length = d.detach().abs().double().amax() if d.numel() else zero

    def search(self, t: Any) -> Tensor:
        start, zero = self.start, torch.zeros((), dtype=torch.int64, device=self.d.device)
        descends = start.slope <= -self.tolerance
        first = Search(torch.where(descends, BRACKETING, DONE), zero, start.t + t, start, start, start, zero.bool())
        end = while_loop(lambda s: s.phase != DONE, self.step, first, max_steps=self.most + 1)
        # A direction that is not finite is passed on.
        return torch.where(descends | ~start.slope.isnan(), end.low.t, start.slope)

    def step(self, s: Search) -> Search:
        new = self.at(s.t)
        bracketing = s.phase == BRACKETING
        return tree.map(lambda a, b: torch.where(bracketing, a, b), self.bracket(s, new), self.zoom(s, new))

    def at(self, t: Tensor) -> Point:
        there = unravel((self.p.double() + t * self.d.double()).to(self.p.dtype), self.params)
        loss, grads = self.evaluate(there)  # pyright: ignore
        loss = loss.double()
        return Point(t, torch.where(loss.isfinite(), loss, torch.inf), _dot(ravel(grads), self.d))

    def too_high(self, new: Point) -> Tensor:
        return new.loss > self.start.loss + self.c1 * new.t * self.start.slope

    def is_flat(self, new: Point) -> Tensor:
        return new.slope.abs() <= -self.c2 * self.start.slope

    def bracket(self, s: Search, new: Point) -> Search:
        """Return the search after a point that follows `before`: it went too far, is good, or must go further."""
        last = s.tried >= self.most
        high = self.too_high(new) | ((s.tried > 1) & (new.loss >= s.before.loss))
        good = ~last & ~high & self.is_flat(new)
        between = ~last & ~good & (high | (new.slope >= 0))
        other = _where(good, new, _where(last, self.start, s.before))
        low, up = _sort(other, new)
        further = _cubic(s.before, new, new.t + 0.01 * (new.t - s.before.t), 10 * new.t)
        ends = last | good
        bracket = self.narrow(Search(s.phase, s.tried, s.t, s.before, low, up, s.stuck & False))
        on = Search(s.phase, s.tried + 1, further, new, low, up, s.stuck)
        done = Search(s.phase * 0 + DONE, s.tried, s.t, new, low, up, s.stuck)
        return _where(ends, done, _where(between, bracket, on))

    def zoom(self, s: Search, new: Point) -> Search:
        """Return the search after a point inside the bracket."""
        high = self.too_high(new) | (new.loss >= s.low.loss)
        good = ~high & self.is_flat(new)
        a, b = _sort(s.low, new)
        turned = new.slope * (s.high.t - s.low.t) >= 0
        low, up = _where(high, a, new), _where(high, b, _where(turned, s.low, s.high))
        next_one = self.narrow(Search(s.phase, s.tried + 1, s.t, s.before, low, up, s.stuck))
        done = Search(s.phase * 0 + DONE, s.tried + 1, s.t, s.before, low, up, s.stuck)
        return _where(good, done, next_one)

    def narrow(self, s: Search) -> Search:
        """Return the search with the next place inside its bracket, or done."""
        least, most = torch.minimum(s.low.t, s.high.t), torch.maximum(s.low.t, s.high.t)
        width = most - least
        over = (s.tried >= self.most) | (width * self.length < self.tolerance)
        t = _cubic(s.low, s.high, least, most)
        close = torch.minimum(most - t, t - least) < 0.1 * width
        move = close & (s.stuck | (t >= most) | (t <= least))
        inner = torch.where((t - most).abs() < (t - least).abs(), most - 0.1 * width, least + 0.1 * width)
        phase = torch.where(over, DONE, ZOOMING)
        return Search(phase, s.tried, torch.where(move, inner, t), s.before, s.low, s.high, close & ~move)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return a.double() @ b.double()


def _where(condition: Tensor, a: Any, b: Any) -> Any:
    return tree.map(lambda x, y: torch.where(condition, x, y), a, b)


def _sort(a: Point, b: Point) -> tuple[Point, Point]:
    """Return the point with the lower loss first."""
    ordered = a.loss <= b.loss
    return _where(ordered, a, b), _where(ordered, b, a)


def _cubic(a: Point, b: Point, least: Tensor, most: Tensor) -> Tensor:
    """Return the minimum of the cubic through two points with their slopes, between two bounds, or their middle."""
    ordered = a.t <= b.t
    a, b = _where(ordered, a, b), _where(ordered, b, a)
    # Each division and root is of something safe, so that no derivative of what is not used is NaN.
    apart = (a.t < b.t) & a.loss.isfinite() & b.loss.isfinite() & a.slope.isfinite() & b.slope.isfinite()
    a, b = (Point(p.t, *(torch.where(apart, x, 0.0) for x in (p.loss, p.slope))) for p in (a, b))
    width = torch.where(apart, b.t - a.t, 1.0)
    d1 = a.slope + b.slope - 3 * (b.loss - a.loss) / width
    square = d1 * d1 - a.slope * b.slope
    d2 = torch.where(square > 0, torch.where(square > 0, square, 1.0).sqrt(), 0.0)
    below = b.slope - a.slope + 2 * d2
    t = b.t - width * ((b.slope + d2 - d1) / torch.where(below == 0, 1.0, below))
    usable = apart & (square >= 0) & (below != 0)
    return torch.where(usable, torch.minimum(torch.maximum(t, least), most), (least + most) / 2)
