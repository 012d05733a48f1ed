"""Replays a step in a process of its own: FOLDER JIT STEP, and saves what it was as FOLDER/moment."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "train"))

from long_run import fitting

from functrain import callbacks, checkpoint, time_travel


def journey(folder, jit, chunk=3):
    """Return the past of the long run that was saved into a folder."""
    fit, state, taking_part = fitting(jit, chunk)
    taking_part = [*taking_part, callbacks.save_checkpoints(folder, every=5, keep_last=None)]
    options = {**fit.keywords, "callbacks": taking_part}
    return time_travel.past(fit.args[0], folder, state=state, **options), fit, state, taking_part


if __name__ == "__main__":
    folder, jit, step = sys.argv[1], sys.argv[2] != "False" and sys.argv[2], int(sys.argv[3])
    moment = time_travel.replay(journey(folder, jit)[0], step)
    checkpoint.save(f"{folder}-moment", [moment.state, moment.batch, moment.key])
