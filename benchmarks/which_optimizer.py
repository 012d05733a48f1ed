"""The curves and figures of docs/explanation/which_optimizer.md: `python -m benchmarks.which_optimizer [--quick]`.

Each optimizer, with a cosine after a warm-up, and each schedule, with AdamW, trains two models at several rates from
several seeds: an MLP on the digits, and a small GPT on English text, that of Python's own help. What counts is the mean
over the seeds at the best of the rates. The figures go to a file beside the page, the tables into the page.
"""

import argparse
import json
import pydoc_data.topics
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

import functrain as ft
from benchmarks.workloads import _gpt
from functrain import data, losses, nn, optim, random, schedule

PAGE = Path(__file__).resolve().parent.parent / "docs/explanation/which_optimizer.md"
FIGURES, PICTURE = PAGE.with_suffix(".json"), PAGE.with_suffix(".svg")
POINTS = 25
"""The places of a curve."""

Make = Callable[[Any], optim.Transform]


@attrs.frozen
class Problem:
    """What is trained.

    Attributes:
        model: the model.
        train: a key -> a batch.
        valid: the batch on which the loss is taken.
        steps: updates.
        seeds: how many.
    """

    model: nn.Model
    train: Callable[[Tensor], tuple[Tensor, Tensor]]
    valid: tuple[Tensor, Tensor]
    steps: int
    seeds: int


def digits(steps: int = 300, seeds: int = 8) -> Problem:
    """Return an MLP on scikit-learn's digits, in batches of 64."""
    train, valid = data.digits()
    inputs, labels = train.arrays

    def batch(key: Tensor) -> tuple[Tensor, Tensor]:
        rows = random.randint(key, (64,), 0, len(labels))
        return inputs[rows], labels[rows]

    model = nn.serial(nn.dense(64), nn.relu, nn.dense(64), nn.relu, nn.dense(10))
    return Problem(model, batch, tuple(valid.arrays), steps, seeds)


def text(steps: int = 500, seeds: int = 5) -> Problem:
    """Return a GPT of two layers that predicts the next character, in batches of 4 times 32 characters."""
    whole = "\n".join(pydoc_data.topics.topics[name] for name in sorted(pydoc_data.topics.topics))
    letters = [c for c in whole if 31 < ord(c) < 127 or c == "\n"]
    codes = torch.tensor([ord(c) - 31 if c != "\n" else 0 for c in letters])
    cut, length = len(codes) * 9 // 10, 32
    windows = torch.arange(length + 1)
    config = _gpt.Config(layers=2, heads=2, width=32, context=length, vocabulary=96, batch=4)

    def batch(key: Tensor) -> tuple[Tensor, Tensor]:
        starts = random.randint(key, (config.batch,), 0, cut - length - 1)
        rows = codes[starts[:, None] + windows]
        return rows[:, :-1], rows[:, 1:]

    held_out = codes[cut:][: 128 * (length + 1)].view(128, length + 1)
    return Problem(_gpt.model(config), batch, (held_out[:, :-1], held_out[:, 1:]), steps, seeds)


def trained(problem: Problem, make: Callable[[], optim.Transform], key: Tensor) -> Tensor:
    """Return the validation losses over a training, at `POINTS` places."""
    optimizer, every = make(), problem.steps // POINTS
    params, buffers = problem.model.init(random.fold_in(key, "init"), problem.train(key)[0])

    def loss(params: Any, batch: tuple[Tensor, Tensor]) -> Tensor:
        return losses.cross_entropy(problem.model.apply(params, buffers, batch[0])[0], batch[1]).mean()

    def step(carry: Any, t: Tensor) -> Any:
        params, state = carry
        batch = problem.train(random.fold_in(key, t))
        evaluate = ft.value_and_grad(lambda params: loss(params, batch))
        value, grads = evaluate(params)
        context = optim.Context(
            position=t.double() / problem.steps, updates=t, step=t, key=random.fold_in(key, "step", t), loss=value
        )
        context = ft.tree.evolve(context, evaluate=evaluate)
        return optim.step(optimizer, grads, state, params, context), value

    def several(carry: Any, ts: Tensor) -> Any:
        carry, _ = ft.scan(step, carry, ts)
        return carry, loss(carry[0], problem.valid)

    start = params, optimizer.init(params)
    _, curve = ft.scan(several, start, torch.arange(every * POINTS).view(POINTS, every))
    return curve


def best(problem: Problem, make: Make, rates: list[float]) -> dict[str, Any]:
    """Return the rate of the lowest mean loss over the seeds, the losses of all seeds with it, and their mean curve."""

    def run(rate: Tensor, key: Tensor) -> Tensor:
        return trained(problem, lambda: make(rate), key)

    keys = torch.stack([random.key(seed) for seed in range(problem.seeds)])
    pairs = torch.tensor(rates, dtype=torch.float64).repeat_interleave(len(keys)), keys.repeat(len(rates), 1)
    with sdpa_kernel(SDPBackend.MATH):  # the others are not mapped over by vmap
        curves = ft.jit(ft.vmap(run))(*pairs)
    curves = curves.nan_to_num(nan=torch.inf).unflatten(0, (len(rates), len(keys)))
    at = int(curves[..., -1].mean(1).argmin())
    last = [round(float(x), 4) for x in curves[at, :, -1]]
    return {"rate": rates[at], "last": last, "curve": [round(float(x), 4) for x in curves[at].mean(0)]}


def warm(rate: Any) -> Any:
    """Return the schedule of the comparison of optimizers."""
    return rate * schedule.warmup(0.05, schedule.cosine(1.0, 0.0))


USUAL = [3e-4, 1e-3, 3e-3, 1e-2, 3e-2]
OPTIMIZERS: dict[str, tuple[Make, list[float]]] = {
    "sgd": (lambda rate: optim.sgd(warm(rate)), [0.1, 0.3, 1.0, 3.0]),
    "sgd, momentum": (lambda rate: optim.sgd(warm(rate), momentum=0.9), [0.01, 0.03, 0.1, 0.3]),
    "adagrad": (lambda rate: optim.adagrad(warm(rate)), [0.01, 0.03, 0.1, 0.3]),
    "rmsprop": (lambda rate: optim.rmsprop(warm(rate)), USUAL),
    "adam": (lambda rate: optim.adam(warm(rate)), USUAL),
    "adamw": (lambda rate: optim.adamw(warm(rate), weight_decay=0.1), USUAL),
    "nadam": (lambda rate: optim.nadam(warm(rate)), USUAL),
    "adafactor": (lambda rate: optim.adafactor(warm(rate)), [0.03, 0.1, 0.3, 1.0]),
    "lion": (lambda rate: optim.lion(warm(rate), weight_decay=0.1), [1e-4, 3e-4, 1e-3, 3e-3]),
    "muon": (lambda rate: optim.muon(warm(rate), others=optim.adamw(warm(0.1 * rate))), [0.01, 0.03, 0.1, 0.3]),
}
SCHEDULES: dict[str, Callable[[Any], Any]] = {
    "constant": lambda rate: rate,
    "linear": lambda rate: rate * schedule.linear(1.0, 0.0),
    "cosine": lambda rate: rate * schedule.cosine(1.0, 0.0),
    "one_cycle": lambda rate: rate * schedule.one_cycle(0.04, 1.0, 0.0),
    "warmup_stable_decay": lambda rate: rate * schedule.warmup_stable_decay(1.0, warmup=0.05),
    "inverse_sqrt": lambda rate: rate * schedule.inverse_sqrt(1.0, 0.05),
    "cosine_restarts": lambda rate: rate * schedule.cosine_restarts(1.0, 0.0, 2, growth=2.0),
}
OF_SCHEDULES = [1e-3, 3e-3, 1e-2, 3e-2]


def measured(
    problems: Mapping[str, Problem], figures: dict[str, Any], keep: bool, save: Callable[[Any], None]
) -> dict[str, Any]:
    """Return the figures of both comparisons by problem, added to others; which `keep` keeps."""
    by_schedule = {
        kind: (lambda rate, of=of: optim.adamw(of(rate), weight_decay=0.1), OF_SCHEDULES)
        for kind, of in SCHEDULES.items()
    }
    for name, problem in problems.items():
        for what, entries in (("optimizers", OPTIMIZERS), ("schedules", by_schedule)):
            for entry, (make, rates) in entries.items():
                by_problem = figures.setdefault(what, {}).setdefault(entry, {})
                if keep and name in by_problem:
                    continue
                by_problem[name] = one = best(problem, make, rates)
                print(f"{name}: {entry}: {statistics.mean(one['last']):.4f} at {one['rate']:g}", flush=True)
                save(figures)  # each takes minutes, and a run that is cut goes on with --missing
    figures["schedules"]["warmup, cosine"] = figures["optimizers"]["adamw"]
    return figures


def table(entries: Mapping[str, Mapping[str, Any]], word: str) -> str:
    """Return the final losses with their standard deviation over the seeds, and the best rates, as a table."""
    problems = list(dict.fromkeys(name for by_problem in entries.values() for name in by_problem))
    lines = [f"| {word} | " + " | ".join(f"{name} | rate" for name in problems) + " |"]
    lines.append("| --- " * (1 + 2 * len(problems)) + "|")

    def order(entry: str) -> float:
        return statistics.mean(entries[entry][problems[0]]["last"])

    for entry in sorted(entries, key=order):
        cells = []
        for name in problems:
            if name not in entries[entry]:
                cells += ["not measured", ""]
                continue
            last = entries[entry][name]["last"]
            cells.append(f"{statistics.mean(last):.3f} ± {statistics.stdev(last):.3f}")
            cells.append(f"{entries[entry][name]['rate']:g}")
        lines.append(f"| {entry} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def written(page: str, tables: Mapping[str, str]) -> str:
    """Return the page with its tables replaced: each stands between a comment with its name and one that ends it."""
    for name, body in tables.items():
        before, begin, rest = page.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition("<!-- end -->")
        if not begin or not end:
            raise ValueError(f"{PAGE.name} has no place for the table {name!r}")
        page = f"{before}{begin}{body}\n{end}{after}"
    return page


def draw(figures: Mapping[str, Any], steps: Mapping[str, int], to: Path) -> None:
    """Draw the mean curves."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams["svg.hashsalt"] = "functrain"
    picture = Figure(figsize=(10, 7), layout="constrained")
    axes = picture.subplots(2, len(steps))
    for row, (what, entries) in zip(axes, figures.items(), strict=True):
        for axis, name in zip(row, steps, strict=True):
            measured_here = {entry: by_problem for entry, by_problem in entries.items() if name in by_problem}
            for k, (entry, by_problem) in enumerate(measured_here.items()):
                curve = by_problem[name]["curve"]
                at = [steps[name] * (i + 1) / len(curve) for i in range(len(curve))]
                axis.plot(at, curve, label=entry, color=f"C{k % 10}", linestyle="-" if k < 10 else "--", linewidth=1)
            axis.set(title=f"{what}: {name}", xlabel="updates", ylabel="validation loss", yscale="log")
    for row in axes:
        row[-1].legend(fontsize=7, loc="upper right")
    picture.savefig(to, metadata={"Date": None})


def save(figures: Mapping[str, Any]) -> None:
    """Write the figures to their file."""
    FIGURES.write_text(json.dumps(figures, separators=(",", ":")) + "\n")


def main() -> None:
    """Measure, and write what the page shows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few steps of few seeds; writes nothing")
    parser.add_argument("--only", nargs="*", help="the problems to measure again; none draws what was measured")
    parser.add_argument("--missing", action="store_true", help="measure what the file of figures does not have yet")
    args = parser.parse_args()
    torch.set_num_threads(1)
    small = {"steps": POINTS, "seeds": 2} if args.quick else {}
    problems = {"digits": digits(**small), "GPT": text(**small)}
    before = json.loads(FIGURES.read_text()) if args.missing or args.only is not None else {}
    chosen = {k: p for k, p in problems.items() if args.only is None or k in args.only}
    figures = measured(chosen, before, args.missing, (lambda _: None) if args.quick else save)
    if args.quick:
        return
    save(figures)
    draw(figures, {name: problem.steps for name, problem in problems.items()}, PICTURE)
    tables = {what: table(entries, what.removesuffix("s")) for what, entries in figures.items()}
    PAGE.write_text(written(PAGE.read_text(), tables))


if __name__ == "__main__":
    main()
