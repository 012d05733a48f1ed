"""Tables and curves from numbers alone: as text in a terminal or a pipe, as HTML and SVG in a notebook."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

_BARS = "▁▂▃▄▅▆▇█"
_COLORS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b")
_WIDTH, _HEIGHT, _LEFT, _EDGE = 420, 150, 64, 12


def columns(rows: Sequence[Sequence[str]], right: Sequence[bool] = ()) -> str:
    """Return rows of words as lines with aligned columns.

    Args:
        rows: the words of each row, equally many.
        right: which columns are aligned to the right; those that it does not reach are not.

    >>> print(columns([("0.weight", "39,200"), ("0.bias", "50")], right=(False, True)))
    0.weight  39,200
    0.bias        50
    """
    rights = [*right, *[False] * (max((len(row) for row in rows), default=0) - len(right))]
    widths = [max(len(word) for word in column) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(w.rjust(n) if r else w.ljust(n) for w, n, r in zip(row, widths, rights, strict=True)) for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def html_table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table as HTML.

    >>> html_table(["a"], [["<b>"]])
    '<table><thead><tr><th>a</th></tr></thead><tbody><tr><td>&lt;b&gt;</td></tr></tbody></table>'
    """
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    body = "".join(f"<tr>{''.join(f'<td>{escape(word)}</td>' for word in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def html_lines(text: str) -> str:
    """Return lines of text as HTML that keeps them.

    >>> html_lines("a < b")
    '<pre>a &lt; b</pre>'
    """
    return f"<pre>{escape(text)}</pre>"


def sparkline(values: Sequence[float]) -> str:
    """Return numbers as a row of bars, from the lowest to the highest; a space where there is no number.

    >>> sparkline([0, 1, 2, 3, float("nan"), 0])
    '▁▃▆█ ▁'
    """
    finite = [value for value in values if math.isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 0.0)
    steps = (len(_BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BARS[round((value - low) * steps)] if math.isfinite(value) else " " for value in values)


def curves(lines: Mapping[str, Sequence[tuple[float, float]]], x: str = "", dashed: Sequence[str] = ()) -> str:
    """Return curves in one picture, as SVG.

    Args:
        lines: the points (x, y) of each curve by its name; points that are not finite are left out.
        x: what the horizontal axis is called.
        dashed: the names of the curves that are drawn dashed.

    Returns:
        An `<svg>` element; "" where there is nothing to draw.

    >>> curves({"lr": [(0, 1.0), (1, 2.0)]}, x="position")[:5], curves({})
    ('<svg ', '')
    """
    drawn = {name: [p for p in points if all(map(math.isfinite, p))] for name, points in lines.items()}
    every = [point for points in drawn.values() for point in points]
    if not every:
        return ""
    (left, right), (low, high) = (_range([p[k] for p in every]) for k in (0, 1))

    def at(point: tuple[float, float]) -> str:
        across = _LEFT + (point[0] - left) / (right - left) * (_WIDTH - _LEFT - _EDGE)
        return f"{across:.1f},{_EDGE + (high - point[1]) / (high - low) * (_HEIGHT - 3 * _EDGE):.1f}"

    shown = [_curve(" ".join(map(at, drawn[name])), k, name in dashed) for k, name in enumerate(drawn)]
    words = [
        _text(_LEFT - 4, _EDGE + 4, f"{high:.4g}", "end"),
        _text(_LEFT - 4, _HEIGHT - 2 * _EDGE, f"{low:.4g}", "end"),
    ]
    words += [_text(_LEFT, _HEIGHT - 8, f"{left:.4g}"), _text(_WIDTH - _EDGE, _HEIGHT - 8, f"{right:.4g}", "end")]
    words += [_text((_LEFT + _WIDTH) / 2, _HEIGHT - 8, x, "middle")]
    names = [_text(_WIDTH, 20 + 16 * k, name, "start", _color(k)) for k, name in enumerate(drawn) if name]
    width = _WIDTH + (8 * max((len(name) for name in drawn), default=0) if names else 0)
    height = max(_HEIGHT, 20 + 16 * len(names))
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{"".join([*shown, *words, *names])}</svg>'


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    middle = abs(low) / 2 or 0.5
    return (low, high) if high > low else (low - middle, high + middle)


def _color(k: int) -> str:
    return _COLORS[k % len(_COLORS)]


def _curve(points: str, k: int, dashed: bool) -> str:
    style = f'fill="none" stroke="{_color(k)}" stroke-width="2"' + ' stroke-dasharray="5 3"' * dashed
    if " " not in points:  # one point alone has no line
        x, y = points.split(",") if points else ("0", "0")
        return f'<circle cx="{x}" cy="{y}" r="3" fill="{_color(k)}"/>' if points else ""
    return f'<polyline points="{points}" {style}/>'


def _text(x: float, y: float, words: Any, anchor: str = "start", color: str = "currentColor") -> str:
    place = f'x="{x:g}" y="{y:g}" text-anchor="{anchor}" fill="{color}"'
    return f'<text {place} font-size="11" font-family="sans-serif">{escape(str(words))}</text>'
