"""Plots: what the lines hold, panel by panel; the messages; no global state."""

import math
import pickle
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from functrain import plot
from functrain import schedule as schedules
from functrain.errors import InvalidArgument, MissingExtra

Figure = pytest.importorskip("matplotlib.figure").Figure

ROWS = (
    {"epoch": 1, "train/loss": 0.5, "train/accuracy": 0.8, "lr": 0.1, "momentum": 0.9, "valid/loss": 0.6},
    {"epoch": 2, "train/loss": 0.3, "train/accuracy": 0.9, "lr": 0.4, "momentum": 0.9, "valid/loss": None},
    {"epoch": 3, "train/loss": 0.2, "train/accuracy": 0.95, "lr": 0.2, "momentum": 0.9, "valid/loss": 0.4},
)
RECORD = {
    "step": torch.arange(4),
    "epoch": torch.arange(4, dtype=torch.float64) / 2,
    "loss": torch.tensor([2.0, 1.5, 1.0, 0.5], requires_grad=True),
    "accuracy": torch.tensor([0.1, 0.2, 0.3, 0.4]),
    "lr": torch.tensor([0.1, 0.3, 0.2, 0.1], dtype=torch.float64),
    "model.1.rate": torch.full((4,), 0.5),
}


def drawn(axis):
    """The lines of an axis by their labels, each a pair of lists."""
    return {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axis.lines}


def labels(figure):
    return [axis.get_ylabel() for axis in figure.axes]


# history.


def test_history_draws_losses_metrics_and_hyperparameters_apart():
    figure = plot.history(ROWS)
    assert isinstance(figure, Figure)
    assert labels(figure) == ["loss", "metrics", "lr", "unchanged"]
    loss, metrics, lr, unchanged = figure.axes
    assert drawn(loss) == {"train/loss": ([1, 2, 3], [0.5, 0.3, 0.2]), "valid/loss": ([1, 3], [0.6, 0.4])}
    assert drawn(metrics) == {"train/accuracy": ([1, 2, 3], [0.8, 0.9, 0.95])}
    assert drawn(lr) == {"lr": ([1, 2, 3], [0.1, 0.4, 0.2])}
    assert drawn(unchanged) == {"momentum": ([1, 2, 3], [0.9] * 3)}
    assert unchanged.get_xlabel() == "epoch"
    assert [text.get_text() for text in loss.get_legend().get_texts()] == ["train/loss", "valid/loss"]


def test_history_draws_one_metric_in_one_color_training_dashed():
    rows = [{"epoch": i, "train/a": i, "train/b": i, "valid/a": i, "valid/b": i} for i in (1, 2)]
    lines = {line.get_label(): line for line in plot.history(rows).axes[0].lines}
    assert lines["train/a"].get_color() == lines["valid/a"].get_color() != lines["train/b"].get_color()
    assert [lines[name].get_linestyle() for name in ("train/a", "valid/a")] == ["--", "-"]


def test_history_takes_a_result_a_record_and_an_iterator():
    wanted = drawn(plot.history(ROWS).axes[0])
    assert drawn(plot.history(SimpleNamespace(history=ROWS)).axes[0]) == wanted
    assert drawn(plot.history(iter(ROWS)).axes[0]) == wanted


def test_history_of_a_record_is_by_step():
    figure = plot.history(RECORD)
    assert labels(figure) == ["loss", "accuracy", "lr", "unchanged"]
    assert drawn(figure.axes[0]) == {"loss": ([0, 1, 2, 3], [2.0, 1.5, 1.0, 0.5])}
    assert drawn(figure.axes[2])["lr"] == ([0, 1, 2, 3], [0.1, 0.3, 0.2, 0.1])
    assert figure.axes[-1].get_xlabel() == "step"


def test_history_without_places_counts_the_rows():
    figure = plot.history({"loss": [3.0, 2.0, 1.0]})
    assert drawn(figure.axes[0]) == {"loss": ([0, 1, 2], [3.0, 2.0, 1.0])} and figure.axes[0].get_xlabel() == "row"


def test_history_shows_nan_as_a_gap_and_leaves_out_what_is_no_number():
    figure = plot.history([{"epoch": 1, "loss": 1.0, "note": "a"}, {"epoch": 2, "loss": math.nan, "note": "b"}])
    assert labels(figure) == ["loss"]
    xs, ys = drawn(figure.axes[0])["loss"]
    assert xs == [1, 2] and ys[0] == 1.0 and math.isnan(ys[1])


def test_history_marks_the_points_of_few_rows_alone():
    few, many = plot.history({"loss": [1.0] * 50}), plot.history({"loss": [1.0] * 51})
    assert few.axes[0].lines[0].get_marker() == "." and many.axes[0].lines[0].get_marker() == ""


def test_history_draws_only_what_is_asked_for():
    assert labels(plot.history(ROWS, only=["*/loss", "lr"])) == ["loss", "lr"]
    assert list(drawn(plot.history(ROWS, only="train/*").axes[0])) == ["train/loss"]


def test_history_draws_in_the_axes_given():
    figure = Figure()
    top, bottom = figure.subplots(2, 1)
    assert plot.history(ROWS, only=["*/loss", "lr"], ax=[top, bottom]) is figure
    assert list(drawn(top)) == ["train/loss", "valid/loss"] and list(drawn(bottom)) == ["lr"]
    grid = Figure().subplots(2, 2)
    plot.history(ROWS, ax=grid)
    assert list(drawn(grid[1, 0])) == ["lr"]
    single = Figure().subplots()
    plot.history(RECORD, only=["loss"], ax=single)
    assert list(drawn(single)) == ["loss"]


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ([], {}, "the history has nothing to draw"),
        ({}, {}, "the history has nothing to draw"),
        ({"step": torch.arange(0), "loss": torch.zeros(0)}, {}, "the history has nothing to draw"),
        ({"step": [1, 2]}, {}, "nothing to draw but its steps"),
        (3, {}, "source must be a Run, a history.*got int"),
        ([1, 2], {}, "source must be a Run, a history.*got list"),
        ("loss", {}, "source must be a Run, a history.*got str"),
        (torch.ones(3), {}, "source must be a Run, a history.*got Tensor"),
        ({"loss": [1.0], "lr": [1.0, 2.0]}, {}, "must be of one length, got {'loss': 1, 'lr': 2}"),
        (ROWS, {"only": ["lr", "test/*"]}, r"only: no column matches 'test/\*'; the columns are train/loss, train/acc"),
        (
            ROWS,
            {"ax": Figure().subplots()},
            r"as many axes as panels, 4 \(loss, metrics, lr, unchanged\), got 1; choose",
        ),
    ],
)
def test_history_says_what_is_wrong(source, options, message):
    with pytest.raises(InvalidArgument, match=message):
        plot.history(source, **options)


# schedule.


def test_schedule_draws_the_values_over_the_position():
    made = schedules.one_cycle(0.3, 0.6, 0.2)
    figure = plot.schedule(made, points=11)
    assert isinstance(figure, Figure) and figure.axes[0].get_xlabel() == "position"
    (line,) = figure.axes[0].lines
    assert list(line.get_xdata()) == [i / 10 for i in range(11)]
    assert list(line.get_ydata()) == [made(i / 10) for i in range(11)]
    assert figure.axes[0].get_legend() is None


def test_schedule_draws_several_by_name_in_the_axes_given():
    axis = Figure().subplots()
    tensors = schedules.linear(torch.tensor(0.0), torch.tensor(1.0))
    figure = plot.schedule({"lr": schedules.linear(0, 1), "momentum": tensors}, points=3, ax=axis)
    assert figure is axis.figure
    assert drawn(axis) == {"lr": ([0, 0.5, 1], [0, 0.5, 1]), "momentum": ([0, 0.5, 1], [0, 0.5, 1])}
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["lr", "momentum"]


def test_schedule_draws_updates_against_updates_and_holds_the_shorter():
    short, long = schedules.over_updates(10, schedules.linear(0, 1)), schedules.over_updates(40, schedules.linear(1, 0))
    axis = plot.schedule({"short": short, "long": long}, points=3).axes[0]
    assert axis.get_xlabel() == "updates"
    assert drawn(axis) == {"short": ([0, 5, 10, 40], [0, 0.5, 1, 1]), "long": ([0, 20, 40], [1, 0.5, 0])}


def test_schedule_needs_no_formula_that_knows_tensors():
    figure = plot.schedule(schedules.Schedule(math.sqrt), points=2)
    assert list(figure.axes[0].lines[0].get_ydata()) == [0.0, 1.0]


@pytest.mark.parametrize(
    ("given", "points", "message"),
    [
        (0.1, 3, "schedules must be a Schedule, or a mapping from names to such, got 0.1"),
        ({}, 3, "schedules must be a Schedule"),
        ({"lr": 0.1}, 3, r"schedules\['lr'\] must be a Schedule, got 0.1"),
        (schedules.constant(1), 1, "points must be a whole number of at least 2, got 1"),
        (schedules.constant(1), 2.5, "points must be"),
        (
            {"a": schedules.constant(1), "b": schedules.over_epochs(2, schedules.constant(1))},
            3,
            "one clock to share an axis, got epochs, position; draw them apart",
        ),
    ],
)
def test_schedule_says_what_is_wrong(given, points, message):
    with pytest.raises(InvalidArgument, match=message):
        plot.schedule(given, points)


# Matplotlib is left alone, and may be missing.


@pytest.mark.parametrize("draw", [lambda: plot.history(ROWS), lambda: plot.schedule(schedules.constant(1))])
def test_without_matplotlib_the_error_names_the_extra(draw, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtra, match=r"pip install 'functrain\[plot\]'") as raised:
        draw()
    assert isinstance(raised.value, ImportError)


def test_drawing_neither_imports_pyplot_nor_changes_the_style(tmp_path):
    program = """
import sys
from functrain import plot, schedule
assert "matplotlib" not in sys.modules
before = __import__("matplotlib").rcParams.copy()
plot.schedule(schedule.constant(1.0)).savefig(sys.argv[1])
plot.history([{"epoch": 1, "loss": 1.0}]).savefig(sys.argv[1])
assert "matplotlib.pyplot" not in sys.modules
assert __import__("matplotlib").rcParams.copy() == before
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "picture.png")], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "picture.png").stat().st_size > 1000


def test_a_notebook_shows_a_figure_where_nothing_has_imported_pyplot():
    figure = plot.history(ROWS)
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert pickle.loads(pickle.dumps(figure)).axes[0].get_ylabel() == "loss"
