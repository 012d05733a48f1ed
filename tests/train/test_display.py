"""Progress, table and what the script prints, on terminals and in pipes: each line whole and in order."""

import os
import re
import subprocess
import sys
import threading

import pytest

SCRIPT = """
import torch, functrain as ft
from functrain import callbacks, data, losses, metrics, nn, optim

rows = data.ArrayDataset((torch.randn(32, 4), torch.randint(3, (32,))))
learner = ft.Learner(nn.dense(3), losses.cross_entropy, optim.sgd(0.1), {"top[0]": metrics.accuracy})
train = data.loader(rows, data.shuffled(8))
saying = {"begin_epoch": lambda run: print("begun", run.epoch), "after_epoch": lambda run: print("done")}
shown = [callbacks.progress(), *([callbacks.print_table()] if TABLE else []), ft.Callback("said", saying)]
ft.fit(learner, ft.init(learner, ft.random.key(0), rows[:1]), train=train, epochs=3, callbacks=shown)
print("end")
"""


def read(fd, chunks):
    while True:
        try:
            chunk = os.read(fd, 4096)
        except OSError:  # a terminal that is closed
            return
        if not chunk:
            return
        chunks.append(chunk)


def visible(raw):
    """Return the lines that stand on a terminal in the end: of each line, what came after it was last erased."""
    lines = raw.replace("\r\n", "\n").split("\n")
    erased = [re.split("\x1b\\[2K", line)[-1] for line in lines]
    return [re.sub("\x1b\\[[0-9;?]*[A-Za-z]", "", line).strip("\r").rstrip() for line in erased]


def output(stdout, stderr, table=True):
    """Return what a script leaves on a terminal and in a pipe, each of its streams going to one of them."""
    (master, slave), (out, into) = os.openpty(), os.pipe()
    ends = {"terminal": slave, "pipe": into}
    env = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"} | {"TERM": "xterm", "COLUMNS": "120"}
    script = f"TABLE = {table}\n{SCRIPT}"
    with subprocess.Popen([sys.executable, "-c", script], stdout=ends[stdout], stderr=ends[stderr], env=env) as process:
        os.close(slave), os.close(into)
        seen = {"terminal": [], "pipe": []}
        threads = [
            threading.Thread(target=read, args=pair) for pair in ((master, seen["terminal"]), (out, seen["pipe"]))
        ]
        for thread in threads:
            thread.start()
        assert process.wait(timeout=100) == 0
        for thread in threads:
            thread.join(timeout=10)
    os.close(master), os.close(out)
    return {name: visible(b"".join(chunks).decode()) for name, chunks in seen.items()}


HEADER, ROW = r"   epoch  train/loss  train/top\[0\]", r" +{} +[\d.]+ +[\d.]+"
LINE = r"epoch {}/3  train/loss [\d.]+  train/top\[0\] [\d.]+  [\d.]+ s"


def are(lines, patterns):
    lines = [line for line in lines if line]
    assert len(lines) == len(patterns), lines
    for line, pattern in zip(lines, patterns, strict=True):
        assert re.fullmatch(pattern, line), lines


def epochs(*rest):
    """Return the lines of three epochs: what the script prints, the table's row, and what else there is."""
    header = [[HEADER], [], []]
    lines = ([f"begun {k}", "done", *header[k], ROW.format(k + 1), *(r.format(k + 1) for r in rest)] for k in range(3))
    return [line for some in lines for line in some] + ["end"]


def test_in_one_pipe_lines_are_whole_and_in_order():
    are(output("pipe", "pipe")["pipe"], epochs(LINE))


def test_without_a_table_the_prints_of_the_script_are_in_order_too():
    expected = [pattern for k in range(3) for pattern in (f"begun {k}", "done", LINE.format(k + 1))]
    are(output("pipe", "pipe", table=False)["pipe"], [*expected, "end"])


def test_on_a_terminal_rows_and_prints_stand_above_the_bar():
    lines = [line for line in output("terminal", "terminal")["terminal"] if "batches/s" not in line]
    are(lines, epochs())


def test_what_is_piped_is_not_put_on_the_terminal_of_the_bar():
    seen = output("pipe", "terminal")
    are(seen["pipe"], epochs())
    are(seen["terminal"], [r"epoch 3/3 .* 12/12 .*"])


@pytest.mark.parametrize("table", [False, True])
def test_lines_of_a_pipe_beside_a_table_on_the_terminal(table):
    seen = output("terminal", "pipe", table)
    are(seen["pipe"], [LINE.format(k) for k in (1, 2, 3)])
    assert seen["terminal"].count("end") == 1
