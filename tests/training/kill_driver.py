"""Kills a tiny training with SIGKILL until it has died often enough, and resumes it each time.

Started by `test_survival.py` in a process of its own: torch is imported once, and every attempt
is a fork of it. Prints one line of JSON: kills, kills while writing, trainings finished, and
those of them that equal one that was not killed and left no temporary file.
"""

import dataclasses
import json
import os
import random
import signal
import time
import traceback
from pathlib import Path

# imported once for all forks, like torch: the curves are drawn by it
import matplotlib.figure  # noqa: F401

from oasisvq.data.layouts import Images
from oasisvq.training import command, loop

KILLS, MID_WRITE_KILLS = 8, 3
REQUEST = command.Request(
    data=(Path("data"),),
    run=Path("reference"),
    preset="seed",
    images=Images.SCANS,
    overrides={
        "epochs": 5,
        "batch_size": 4,
        "codebook_size": 32,
        "learning_rate": 1e-3,
        "prior_epochs": 2,
        "volumes_epochs": 1,
        "residue_epochs": 1,
    },
    seed=5,
    precision="float32",
    device="cpu",
    max_minutes=None,
    resume=False,
    force=False,
)


def attempt(request: command.Request, write_to_die_in: int) -> int:
    """Train in a fork; returns its process id. 0: die in no write, n: in the n-th one."""
    child = os.fork()
    if child:
        return child
    sync, writes = os.fsync, 0

    def dying_sync(descriptor: int) -> None:
        nonlocal writes
        writes += 1
        if writes == write_to_die_in:
            os.kill(os.getpid(), signal.SIGKILL)
        sync(descriptor)

    os.fsync = dying_sync
    try:
        command.train(request, lambda message: None, lambda: False, lambda done, total: None)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def died(child: int) -> bool:
    """Wait for a fork; whether it was killed. A failure of its own ends the driver."""
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return True
    if os.waitstatus_to_exitcode(status):
        raise SystemExit("the training failed by itself")
    return False


def main() -> None:
    """See the module's docstring."""
    loop.SECONDS_PER_CHECKPOINT = 0.0  # at the end of every epoch
    began = time.monotonic()
    assert not died(attempt(REQUEST, 0))
    whole = time.monotonic() - began
    wanted = (REQUEST.run / "model.safetensors").read_bytes()
    rng = random.Random(11)
    kills = mid_write = finished = equal = 0
    while kills < KILLS or not finished:
        run = Path(f"killed-{finished}")
        resume = (run / "checkpoint.safetensors").exists()
        request = dataclasses.replace(REQUEST, run=run, force=True)
        if resume:  # all settings come from the checkpoint
            request = dataclasses.replace(
                request, resume=True, preset=None, images=None, seed=None, precision=None, overrides={}
            )
        in_write = kills < KILLS and mid_write < MID_WRITE_KILLS and kills % 3 == 0
        child = attempt(request, rng.randint(1, 4) if in_write else 0)
        if not in_write and kills < KILLS:
            time.sleep(rng.uniform(0, 0.6 * whole))
            os.kill(child, signal.SIGKILL)
        if died(child):
            kills += 1
            mid_write += in_write
        else:
            finished += 1
            no_temporaries = not list(run.glob(".*"))
            equal += no_temporaries and (run / "model.safetensors").read_bytes() == wanted
    print(json.dumps({"kills": kills, "mid_write": mid_write, "finished": finished, "equal": equal}))


if __name__ == "__main__":
    main()
