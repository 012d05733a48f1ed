"""How long a case of the conformance may take."""

import subprocess
import sys
from pathlib import Path

import pytest

from .limits import wait

ROOT = Path(__file__).resolve().parents[2]
BEGIN = "import time; from tests.conformance.limits import begin_limit; begin_limit(0.2)\n"


def ended(code, tmp_path, seconds=60.0):
    progress = tmp_path / "progress"
    progress.write_text("")
    process = subprocess.Popen([sys.executable, "-c", BEGIN + code], cwd=ROOT)
    return wait(process, progress, seconds)


@pytest.mark.parametrize(
    ("code", "how"),
    [
        ("while True: pass", "took more than 90 s"),
        ("time.sleep(0.5)", "the process ended with 0"),
        ("for _ in range(4):\n    begin_limit(0.2)\n    t = time.process_time()\n"
         "    while time.process_time() < t + 0.1: pass", "the process ended with 0"),
        ("raise SystemExit(3)", "the process ended with 3"),
    ],
    ids=["computes too long", "waits", "begins anew", "ends"],
)  # fmt: skip
def test_a_case_is_ended_by_the_time_of_the_processor(code, how, tmp_path):
    assert ended(code, tmp_path) == how


def test_a_process_that_waits_for_ever_is_ended(tmp_path):
    assert ended("time.sleep(60)", tmp_path, seconds=0.5) == "nothing for 0.5 s"
