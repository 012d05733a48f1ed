"""The time that a case may take: that of the processor, which is the same on a busy machine."""

import os
import signal
import subprocess
import time

SECONDS_A_CASE = 90
SECONDS_WAITED = 3600
"""When a process is ended that waits for what never comes, and so takes no time of the processor."""


def begin_limit(seconds: float = SECONDS_A_CASE) -> None:
    """End this process when it has taken that many seconds of the processor from now on; the next call begins anew."""
    signal.setitimer(signal.ITIMER_PROF, seconds)


def wait(process: subprocess.Popen, progress: str | os.PathLike, seconds: float = SECONDS_WAITED) -> str:
    """Wait for a process, and end it when its file of progress stays the same too long; return how it ended."""
    last, since = b"", time.monotonic()
    while process.poll() is None:
        time.sleep(0.2)
        with open(progress, "rb") as file:
            now = file.read()
        if now != last:
            last, since = now, time.monotonic()
        elif time.monotonic() - since > seconds:
            process.kill()
            process.wait()
            return f"nothing for {seconds} s"
    if process.returncode == -signal.SIGPROF:
        return f"took more than {SECONDS_A_CASE} s"
    return f"the process ended with {process.returncode}"
