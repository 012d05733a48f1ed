"""What `import functrain` takes more than `import torch`, each measured in a fresh process.

Lightning is there for comparison. The check says nothing but that the import succeeds.
"""

import subprocess
import sys
from functools import partial

from benchmarks.entrant import Entrant, Target, Unavailable

UNIT = (1.0, "s")

TIMED = """
import time, torch
begun = time.perf_counter()
import {module}
print(time.perf_counter() - begun)
"""


def _seconds(module: str) -> float:
    command = [sys.executable, "-W", "ignore", "-c", TIMED.format(module=module)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _entrant(module: str) -> Entrant:
    try:
        _seconds(module)  # its bytecode is written, and its files are in the page cache
    except subprocess.CalledProcessError as error:
        raise Unavailable(error.stderr.strip().splitlines()[-1]) from None
    return Entrant(partial(_seconds, module), lambda: 0.0)


ENTRANTS = {"functrain": partial(_entrant, "functrain"), "Lightning": partial(_entrant, "lightning")}
TARGETS = [Target("functrain", None, 0.3)]
