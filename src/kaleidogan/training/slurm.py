"""SLURM: what a training asks of it, through its own commands."""

import os
import re
import subprocess
from collections.abc import Mapping

TIMEOUT_S = 60.0
"""How long a command of SLURM may take, in seconds: a busy controller answers late."""
TRIES = 4
"""A command dies of the signals that SLURM sends to a job; up to three come within a second."""


def job_id(environment: Mapping[str, str] = os.environ) -> str | None:
    """This job's id, of an array's job ARRAY_TASK; None outside of a job."""
    if "SLURM_ARRAY_JOB_ID" in environment:
        return f"{environment['SLURM_ARRAY_JOB_ID']}_{environment['SLURM_ARRAY_TASK_ID']}"
    return environment.get("SLURM_JOB_ID")


def is_task(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process is one task of an `srun`, rather than the batch script itself or none of it."""
    return "SLURM_STEP_ID" in environment and "SLURM_PROCID" in environment


def restarts(environment: Mapping[str, str] = os.environ) -> int:
    """How often SLURM has started this job again."""
    return int(environment.get("SLURM_RESTART_COUNT", "0"))


def was_cancelled() -> bool:
    """Whether the job is being ended by `scancel`, and not by preemption, its time limit or a signal.

    A job that is being ended is COMPLETING, whatever ends it. One that SLURM has requeued counts one restart
    more than this process knows of; one that reached its time limit, or must make room, says so.

    Raises:
        OSError: if SLURM does not answer.
    """
    shown = _show_job()
    return (
        _field("JobState", shown) in ("COMPLETING", "CANCELLED")
        and int(_field("Restarts", shown)) == restarts()
        and _field("Reason", shown) != "TimeLimit"
        and _field("PreemptTime", shown) == "None"
    )


def requeue() -> None:
    """Have SLURM start this job again, from its first line, when there is room. All its tasks get SIGTERM.

    To be called by one task, once all is saved. If SLURM has requeued the job already, nothing is done.

    Raises:
        OSError: if SLURM refuses, or does not answer.
    """
    number = str(job_id())
    try:
        _run("scontrol", "requeue", number)
    except OSError as error:
        if int(_field("Restarts", _show_job())) > restarts():
            return
        raise OSError(
            f"{error}\nthe run is saved, but job {number} is not requeued: submit it again, "
            "with --requeue if the cluster does not requeue by itself"
        ) from None


def first_address() -> str:
    """The address of the node of rank 0, where the ranks of an `srun` meet.

    Raises:
        OSError: if SLURM does not answer.
    """
    nodes = os.environ.get("SLURM_STEP_NODELIST") or os.environ["SLURM_JOB_NODELIST"]
    try:
        first = _run("scontrol", "show", "hostnames", nodes).split()[0]
        # A node's name need not be one that resolves.
        return _field("NodeAddr", _run("scontrol", "-o", "show", "node", first))
    except OSError as error:
        raise OSError(f"{error}\nset MASTER_ADDR and MASTER_PORT to where the ranks may meet") from None


def _show_job() -> str:
    return _run("scontrol", "-o", "show", "job", str(job_id()))


def _field(key: str, shown: str) -> str:
    found = re.search(rf"(?:^|\s){key}=(\S+)", shown)
    if found is None:
        raise OSError(f"scontrol shows no {key}: {shown[:200]}")
    return found[1]


def _run(*command: str) -> str:
    try:
        for _ in range(TRIES):
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
            if done.returncode >= 0:
                break
    except subprocess.TimeoutExpired:
        raise OSError(f"`{' '.join(command)}` did not answer in {TIMEOUT_S:g} s") from None
    except FileNotFoundError:
        raise OSError(f"{command[0]}: there is no such command on this node") from None
    if done.returncode:
        raise OSError(f"`{' '.join(command)}`: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout
