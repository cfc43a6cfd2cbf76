"""A real SLURM: jobs that are signalled, requeued, preempted, cancelled, and that lose their node."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import wandb_file
from conftest import TINY, write_set
from slurm_lab import Lab, wait
from test_resume import rows
from test_stopping import assert_equal_runs

pytestmark = pytest.mark.slurm
ROOT = Path(__file__).parents[1]
PREFIX = "dcgan-set"
TRAINING = (
    *(o for o in TINY if not o.startswith(("kimg", "tick_kimg"))),
    *("model=dcgan", "data=shards", "data.path=set", "trainer.threads=1", "kimg=1.6", "tick_kimg=0.08"),
)
ANSWER = """
import os, signal, sys, time
from kaleidogan.training import slurm

def answer(number, frame):
    print(signal.Signals(number).name, slurm.was_cancelled(), flush=True)
    heard.append(number)

heard = []
for number in (signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, answer)
print("at", slurm.job_id(), slurm.is_task(), slurm.restarts(), slurm.first_address(), flush=True)
while not heard and sys.argv[1] == "wait":
    time.sleep(0.05)
time.sleep(0.3)
if sys.argv[2:] == ["requeue"] and not slurm.was_cancelled():
    slurm.requeue()
"""
"""What a task of these tests does: says where it is, and waits for a signal."""


@pytest.fixture
def job(tmp_path, slurm):
    """Submits a batch script that appends what it says to `out.txt`; ended with the test."""
    jobs = []
    (tmp_path / "answer.py").write_text(ANSWER)

    def submit(command: str, *options: str) -> str:
        lines = ["--open-mode=append", "--output=out.txt", *options]
        path = tmp_path / "job.sbatch"
        path.write_text("\n".join(["#!/bin/bash", *(f"#SBATCH {line}" for line in lines), command, ""]))
        jobs.append(slurm.submit(path))
        return jobs[-1]

    yield submit
    slurm.clear()


def said(folder: Path, text: str, times: int = 1, timeout: float = 60) -> str:
    """Wait until the job has said something so often; returns all that it has said."""
    out = folder / "out.txt"
    try:
        wait(text, lambda: out.exists() and out.read_text().count(text) >= times, timeout)
    except TimeoutError as error:
        raise TimeoutError(f"{error}; it said: {out.read_text() if out.exists() else 'nothing'}") from None
    return out.read_text()


def test_a_task_knows_its_job_and_where_to_meet(tmp_path, job):
    number = job(f"srun {sys.executable} answer.py go\n{sys.executable} answer.py go", "-N2", "-n2")
    words = said(tmp_path, "at ", times=3)
    assert words.count(f"at {number} True 0 127.0.0.1") == 2
    assert words.count(f"at {number} False 0 127.0.0.1") == 1  # the script itself, without srun


CAUSES = {
    "scancel": ("scancel {job}", True),
    "scancel --signal=TERM": ("scancel --signal=TERM {job}", False),
    "scancel --signal=USR1": ("scancel --signal=USR1 {job}", False),
    "requeue": ("scontrol requeue {job}", False),
    "preemption": ("sbatch --parsable -p urgent -N2 --exclusive -o urgent.txt --wrap true", False),
}


@pytest.mark.parametrize("cause", [*CAUSES, "preemption without time", "preemption that cancels"])
def test_a_cancelled_job_is_told_from_one_that_must_go_on(tmp_path, slurm, job, cause):
    settings = {
        "preemption without time": ("GraceTime=0",),
        "preemption that cancels": ("GraceTime=0", "PreemptMode=CANCEL"),
    }
    command, cancelled = CAUSES[cause.partition(" ")[0] if cause in settings else cause]
    number = job(f"srun {sys.executable} answer.py wait", "-N2", "-n2")
    said(tmp_path, "at ", times=2)
    try:
        slurm.run("scontrol", "update", "PartitionName=main", *settings.get(cause, ("GraceTime=20",)))
        slurm.run(*command.format(job=number).split(), cwd=tmp_path)
        words = said(tmp_path, "USR1" if "USR1" in cause else "TERM ", times=2)
    finally:
        slurm.run("scontrol", "update", "PartitionName=main", "GraceTime=20", "PreemptMode=REQUEUE")
    assert f" {cancelled}\n" in words
    assert f" {not cancelled}\n" not in words


@pytest.mark.skipif("CI" in os.environ, reason="SLURM's shortest limit takes a minute and a half")
def test_a_job_at_its_time_limit_goes_on(tmp_path, slurm, job):
    number = job(f"srun {sys.executable} answer.py wait requeue", "--time=1")
    assert "SIGTERM False" in said(tmp_path, "SIGTERM", timeout=150)
    slurm.start_again(number)
    said(tmp_path, f"at {number} True 1")


def test_a_job_of_an_array_is_requeued_alone_and_can_be_cancelled_later(tmp_path, slurm, job):
    number = job(f"srun {sys.executable} answer.py wait requeue", "--array=0-1")
    said(tmp_path, "at ", times=2)
    slurm.run("scancel", "--signal=USR1", f"{number}_1")
    slurm.start_again(f"{number}_1")
    said(tmp_path, f"at {number}_1 True 1")
    assert slurm.show(f"{number}_0", "Restarts") == "0"
    slurm.run("scancel", number)
    assert said(tmp_path, "SIGTERM True", times=2).count("SIGUSR1 False") == 1
    slurm.wait_for(f"{number}_0", "CANCELLED")
    slurm.wait_for(f"{number}_1", "CANCELLED")


def test_one_that_slurm_has_requeued_itself_is_left_to_it(tmp_path, slurm, job):
    number = job(f"srun {sys.executable} answer.py wait requeue", "-n1")
    said(tmp_path, "at ")
    slurm.run("scontrol", "requeue", number)
    slurm.start_again(number)
    words = said(tmp_path, f"at {number} True 1")
    assert "Traceback" not in words
    assert slurm.show(number, "Restarts") == "1"


def test_a_job_that_may_not_be_requeued_says_so(tmp_path, slurm, job):
    number = job(f"srun {sys.executable} answer.py wait requeue", "--no-requeue")
    said(tmp_path, "at ")
    slurm.run("scancel", "--signal=USR1", number)
    words = said(tmp_path, f"is saved, but job {number} is not requeued: submit it again, with --requeue")
    assert "presently disabled" in words


def train(slurm: Lab, folder: Path, *overrides: str, options: tuple[str, ...] = ()) -> str:
    """Submit the documented script in a folder with a small data set."""
    folder.mkdir()
    write_set(folder / "set")
    (folder / "train.py").symlink_to(ROOT / "train.py")
    (folder / "train.sbatch").symlink_to(ROOT / "docs" / "train.sbatch")
    return slurm.submit(
        folder / "train.sbatch", *options, "--output=out.txt", arguments=(*TRAINING, *overrides)
    )


def wait_for_checkpoint(slurm: Lab, number: str, run: Path, since: float) -> None:
    """Wait until a training has saved after `since`, a time in seconds."""
    last = run / "checkpoints" / "last.ckpt"
    slurm.wait_for(number, "RUNNING")

    def saved() -> bool:
        assert slurm.show(number, "JobState") == "RUNNING", (run.parent.parent / "out.txt").read_text()
        return last.exists() and last.stat().st_mtime > since

    wait("a checkpoint", saved, 120)


def test_a_run_that_is_requeued_and_loses_its_node_ends_like_one_that_is_not(tmp_path, slurm):
    """Two ranks, on a node each."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    two = ("--nodes=2", "--ntasks-per-node=1")
    slurm.wait_for(train(slurm, whole, "name=a", "logger=csv", options=two), "COMPLETED", timeout=120)
    assert "on 2 x cpu" in (whole / "out.txt").read_text()
    number = train(slurm, parts, "logger=wandb", options=two)
    run = parts / "runs" / f"{PREFIX}-001"
    before = 0.0
    for end in ("USR1", "TERM", "lost", "USR1"):  # TERM ends W&B's own process, too
        wait_for_checkpoint(slurm, number, run, before)
        before = (run / "checkpoints" / "last.ckpt").stat().st_mtime
        if end == "lost":
            slurm.lose_node(node := slurm.show(number, "BatchHost"))
        else:
            slurm.run("scancel", f"--signal={end}", number)
        slurm.wait_for(number, "PENDING", timeout=120)
        if end == "lost":
            slurm.start_node(node)
        else:
            before = (run / "checkpoints" / "last.ckpt").stat().st_mtime
        slurm.start_again(number)
    slurm.wait_for(number, "COMPLETED", timeout=120)
    assert slurm.show(number, "Restarts") == "4"
    assert [path.name for path in (parts / "runs").iterdir()] == [run.name]
    assert_equal_runs(run, whole / "runs" / "a")
    (newest,) = run.glob("wandb/offline-run-*/*.wandb")
    assert len(list(run.glob("wandb/superseded/*offline-run-*"))) == 4
    told = wandb_file.read(newest)
    assert told["id"] == json.loads((run / "state.json").read_text())["id"]
    kimg = [row["progress/kimg"] for row in told["history"] if "loss/generator" in row]
    assert kimg == [float(row["progress/kimg"]) for row in rows(run)]


def test_a_sweep_is_an_array_of_jobs_and_one_that_is_requeued_is_not_failed(tmp_path, slurm):
    write_set(tmp_path / "set")
    plain = ("hydra.launcher.gpus_per_node=null", "hydra.launcher.cpus_per_task=1", "logger=csv")
    sweep = subprocess.Popen(
        [sys.executable, ROOT / "train.py", "-m", "launcher=slurm", *TRAINING, *plain, "seed=1,2"],
        cwd=tmp_path,
        env=slurm.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wait("two jobs", lambda: len(slurm.run("squeue", "-h", "-r", "-o", "%i").split()) == 2)
    job = next(job for job in slurm.run("squeue", "-h", "-r", "-o", "%i").split() if job.endswith("_1"))
    runs = tmp_path / "runs"
    wait("a run", lambda: list(runs.glob(f"{PREFIX}-*/state.json")), 120)
    wait("both runs", lambda: len(list(runs.glob(f"{PREFIX}-*/checkpoints/last.ckpt"))) == 2, 120)
    slurm.run("scancel", "--signal=USR1", job)
    slurm.start_again(job)
    words, _ = sweep.communicate(timeout=200)
    assert sweep.returncode == 0, words
    assert slurm.show(job, "Restarts") == "1"
    told = {run.name: rows(run) for run in runs.glob(f"{PREFIX}-*")}
    assert len(told) == 2
    assert all(len(each) == 20 for each in told.values())


def test_a_signal_in_start_up_has_the_job_requeued_and_scancel_ends_it(tmp_path, slurm):
    number = train(slurm, tmp_path / "a", "name=a", "logger=csv")
    wait("the task", lambda: f"{number}.0" in slurm.run("squeue", "-h", "--steps", "-o", "%i"))
    time.sleep(0.5)
    slurm.run("scancel", "--signal=USR1", number)
    slurm.start_again(number)
    run = tmp_path / "a" / "runs" / "a"
    wait_for_checkpoint(slurm, number, run, 0.0)
    before = (run / "log.txt").read_text()
    slurm.run("scancel", number)
    slurm.wait_for(number, "CANCELLED")
    told = (run / "log.txt").read_text().removeprefix(before)
    assert "stopped by SIGTERM and saved" in told
    assert "again" not in told
    assert slurm.show(number, "Restarts") == "1"
