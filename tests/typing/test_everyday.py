"""The script that pyright reads also runs; what pyright says of it is checked where pyright runs."""

import runpy
from pathlib import Path


def test_the_script_of_the_type_checker_runs():
    names = runpy.run_path(str(Path(__file__).with_name("everyday.py")))
    assert names["run"].finished and names["run"].history["valid/accuracy"][-1] > 0.8
