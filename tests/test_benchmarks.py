"""The benchmarks' harness, and the parts of the GPU benchmark that can be tried without a GPU."""

import importlib
import math
import mmap
import os
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # benchmarks/ is no part of what is installed

from benchmarks import gpu, harness  # noqa: E402
from benchmarks.entrant import Target, measure  # noqa: E402
from benchmarks.workloads import _gpt, gpt2, memory  # noqa: E402

TINY = _gpt.Config(layers=2, heads=2, width=8, context=6, vocabulary=11, batch=3)
FIRST = math.log(TINY.vocabulary)
"""About the loss of a model that knows nothing."""


def outcome(name, *samples, check=1.0, unavailable=None):
    return harness.Outcome(name, list(samples), check, unavailable)


def printed(monkeypatch, outcomes, **module):
    given = {"UNIT": (1e3, "ms"), "TARGETS": [], "__doc__": "What it is.\nMore.", **module}
    monkeypatch.setattr(harness, "load", lambda name: type("Workload", (), given))
    out = StringIO()
    harness.report("workload", outcomes, Console(file=out, width=110))
    return out.getvalue()


def test_entrants_agree_within_the_tolerance():
    harness.agree([outcome("a", check=[1.0, 2.0]), outcome("b", check=[1.001, 2.0])], 2e-3)
    harness.agree([outcome("a", check=5), outcome("b", check=None, unavailable="not installed")], 1e-3)


@pytest.mark.parametrize("other", [[1.0, 2.1], [1.0], [1.0, math.nan]])
def test_entrants_that_differ_are_named(other):
    with pytest.raises(RuntimeError, match=r"a computed \[1.0, 2.0\], b .* must agree"):
        harness.agree([outcome("a", check=[1.0, 2.0]), outcome("b", check=other)], 1e-3)


def test_report_prints_medians_in_the_unit_quickest_first(monkeypatch):
    text = printed(monkeypatch, [outcome("slow", 0.004, 0.003, 0.009), outcome("quick", 0.002)])
    assert "workload: What it is." in text and "More" not in text
    assert [line.split() for line in text.splitlines() if "%" in line] == [
        ["quick", "2", "2", "0%"],
        ["slow", "4", "3", "150%"],
    ]


def test_report_says_why_an_entrant_did_not_run(monkeypatch):
    text = printed(monkeypatch, [outcome("absent", unavailable="not here")], TARGETS=[Target("absent", None, 1.0)])
    assert "not here" in text and "target" not in text


@pytest.mark.parametrize(
    "target, line",
    [
        (Target("ours", "peer", 0.5), "ours / peer = 0.50, target 0.5: reached"),
        (Target("ours", "peer", 0.4), "ours / peer = 0.50, target 0.4: MISSED"),
        (Target(("ours", "best", "absent"), ("peer", "slow"), 0.25), "best / peer = 0.25, target 0.25: reached"),
        (Target("ours", None, 3.0), "ours = 2.00, target 3 ms: reached"),
        (Target("ours", None, 1.5), "ours = 2.00, target 1.5 ms: MISSED"),
    ],
)
def test_report_compares_with_the_targets(monkeypatch, target, line):
    outcomes = [outcome("ours", 0.002), outcome("best", 0.001), outcome("peer", 0.004), outcome("slow", 0.008)]
    assert line in printed(monkeypatch, outcomes, TARGETS=[target])


@pytest.mark.parametrize(
    "target", [Target("ours", "absent", 1), Target("absent", "ours", 1), Target("absent", None, 1)]
)
def test_a_target_of_an_entrant_that_did_not_run_is_left_out(target):
    assert harness.verdict(target, {"ours": 1.0}, 1.0, "s") is None


def test_report_has_the_workloads_own_figures(monkeypatch):
    text = printed(monkeypatch, [outcome("one", 0.5)], FIGURES={"a second": lambda seconds: f"{1 / seconds:g} times"})
    assert "a second" in text and "2 times" in text


def test_measure_takes_the_time_unless_the_run_says_otherwise():
    assert measure(lambda: 42.0) == 42.0
    assert 0 <= measure(lambda: None) < 1


@pytest.fixture
def from_root(monkeypatch):
    monkeypatch.chdir(ROOT)  # the processes of the entrants import benchmarks from here


def test_entrants_run_in_processes_of_their_own(from_root):
    (outcome,) = harness.compete("importing", rounds=2, only=["functrain"])
    assert outcome.name == "functrain" and outcome.unavailable is None
    assert len(outcome.samples) == 2 and all(0 < sample < 60 for sample in outcome.samples)


def test_an_entrant_that_cannot_run_says_why(from_root):
    (outcome,) = harness.compete("gpt2", rounds=1, only=["functrain, aten"])
    assert "needs a CUDA device" in outcome.unavailable and outcome.samples == []


def test_an_entrant_that_fails_is_named_and_does_not_end_the_run(from_root, monkeypatch, capfd):
    monkeypatch.setenv("FUNCTRAIN_BENCH_DEVICE", "meta")  # a device on which nothing has a value
    out = StringIO()
    assert not harness.run_all(["dispatch"], 1, ["PyTorch, foreach in place"], Console(file=out, width=200))
    assert "dispatch: the entrant PyTorch, foreach in place died with status 1" in out.getvalue()
    assert "Tensor.item()" in capfd.readouterr().err


@pytest.mark.parametrize("name", harness.workload_names())
def test_each_workload_has_what_the_harness_reads(name):
    module = importlib.import_module(f"benchmarks.workloads.{name}")
    scale, unit = module.UNIT
    assert scale > 0 and unit and all(map(callable, module.ENTRANTS.values())) and module.__doc__
    named = [
        n for t in module.TARGETS for side in (t.ours, t.peer or ()) for n in ([side] if type(side) is str else side)
    ]
    assert module.TARGETS and set(named) <= set(module.ENTRANTS)


def test_every_workload_for_a_gpu_is_known():
    assert set(gpu.TABLE) <= set(harness.workload_names())


def test_the_gpu_benchmark_says_that_there_is_no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    before = os.environ.get("FUNCTRAIN_BENCH_DEVICE")
    with pytest.raises(SystemExit, match=r"no CUDA device is at hand: PyTorch .* sees none\. Nothing was run"):
        gpu.main(["gpt2"])
    assert os.environ.get("FUNCTRAIN_BENCH_DEVICE") == before


@pytest.mark.parametrize("device, reason", [("cpu", "'cpu' is no CUDA device"), ("cuda:7", "there is no cuda:7")])
def test_the_gpu_benchmark_says_what_is_wrong_with_a_device(monkeypatch, device, reason):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert reason in gpu.missing(device)
    assert gpu.missing("cuda:0") is gpu.missing("cuda") is None


def test_the_gpu_benchmark_refuses_an_unknown_workload(capsys):
    with pytest.raises(SystemExit):
        gpu.main(["nonsense"])
    assert "unknown workload 'nonsense'" in capsys.readouterr().err


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_gpt_trains_alike_in_functrain_and_pytorch(dtype):
    """The loop of the GPU benchmark, at a small size."""
    ours = _gpt.functrain_entrant(TINY, "aten", 1, dtype)
    theirs = _gpt.module_entrant(TINY, False, 1, dtype)
    assert ours.check() == pytest.approx(theirs.check(), rel=1e-5 if dtype is None else 1e-2)
    assert ours.check()[0] == pytest.approx(FIRST, abs=0.1)
    assert ours.check()[2] < ours.check()[0]
    assert ours.run() > 0 and theirs.run() > 0


def test_mixed_precision_computes_in_it_and_keeps_the_parameters():
    model = _gpt.in_autocast(_gpt.model(TINY), torch.bfloat16)
    params, (tokens, _) = _gpt.params_of(TINY), _gpt.batch_of(TINY)
    logits, _ = model.apply(params, {}, tokens)
    assert logits.dtype == torch.bfloat16
    assert all(leaf.dtype == torch.float32 for leaf in torch.utils._pytree.tree_leaves(params))


@pytest.mark.parametrize("config", [TINY, gpt2.CONFIG])
def test_the_count_of_parameters_is_the_models(config):
    with torch.device("meta"):
        net = _gpt.GPT(config)
    assert gpt2.parameters(config) == sum(p.numel() for p in net.parameters())


def test_figures_of_utilisation():
    assert gpt2.parameters(gpt2.CONFIG) == pytest.approx(124e6, rel=0.01)
    assert gpt2.operations(gpt2.CONFIG) == pytest.approx(6 * 124e6 + 12 * 12 * 768 * 1024, rel=0.01)
    assert gpt2.peak("NVIDIA H100 PCIe") == 756e12 and gpt2.peak("NVIDIA H100 80GB HBM3") == 989e12
    assert gpt2.peak("NVIDIA L40S") == 362e12 and gpt2.peak("NVIDIA L4") == 121e12
    assert math.isnan(gpt2.peak("GeForce 256"))


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the resident memory is read from /proc")
def test_the_peak_of_memory_is_seen_after_it_is_over():
    memory.reset_peak()
    before = memory.peak()
    with mmap.mmap(-1, 64 * memory.MIB) as block:  # memory that no earlier test has freed and the process kept
        block.write(b"1" * (64 * memory.MIB))
    assert memory.peak() - before > 60 * memory.MIB


def test_the_command_names_the_workloads(from_root):
    done = subprocess.run([sys.executable, "-m", "benchmarks", "nonsense"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "unknown workload 'nonsense'; choose from checkpoint, cnn, depth" in done.stderr
