"""A real SLURM: jobs that are signalled, requeued, preempted, cancelled, and that lose their node."""

from pathlib import Path

import pytest

pytestmark = pytest.mark.slurm
ROOT = Path(__file__).parents[1]
ASK = """
import os, signal, time
from kaleidogan.training import slurm

def answer(number, frame):
    print(signal.Signals(number).name, slurm.was_cancelled(), flush=True)

for number in (signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, answer)
print("at", slurm.job_id(), slurm.is_task(), slurm.restarts(), slurm.first_address(), flush=True)
for _ in range(60):
    if any(os.path.exists(f"{name}-{os.environ['SLURM_JOB_ID']}-{slurm.restarts()}") for name in ("requeue", "end")):
        break
    time.sleep(0.1)
"""


def script(folder: Path, command: str, *options: str) -> Path:
    """Write a batch script that appends what it says to `out.txt`."""
    lines = ["--open-mode=append", "--output=out.txt", *options]
    path = folder / "job.sbatch"
    path.write_text("\n".join(["#!/bin/bash", *(f"#SBATCH {line}" for line in lines), command, ""]))
    return path
