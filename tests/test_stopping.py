"""Signals, kills and two processes: with real processes."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import wandb_file
from conftest import TINY, small, write_set
from kaleidogan.training import checkpoint
from kaleidogan.training.runs import Run
from test_resume import rows

ROOT = Path(__file__).parents[1]
LONG = ("model=dcgan", "data=shards", "data.path=set", "logger=csv", "kimg=0.8", "tick_kimg=0.08", "name=a")


def start(folder: Path, *overrides: str) -> subprocess.Popen[str]:
    """Begin a training in a process of its own."""
    settings = [o for o in TINY if not o.startswith(("kimg", "tick_kimg"))]
    return subprocess.Popen(
        [sys.executable, ROOT / "train.py", *settings, *LONG, "trainer.threads=1", *overrides],
        cwd=folder,
        # A W&B process of its own: that of the tests would outlive the kill, and hold on to the run.
        env={key: value for key, value in os.environ.items() if key != "WANDB_SERVICE"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    while not path.exists():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)


def finish(folder: Path, *overrides: str) -> None:
    process = start(folder, *overrides)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said


def assert_equal_runs(one: Path, other: Path) -> None:
    """Weights, average, optimisers, random numbers, clock and scalars, to the bit."""
    first, second = (checkpoint.load(run / "checkpoints" / "last.ckpt") for run in (one, other))
    for part in ("state_dict", "optimizers"):
        assert str(flat(first[part])) == str(flat(second[part])), part
    # Python's own generator is drawn from by the type checks that tests run with.
    for mine, theirs in zip(first["random"], second["random"], strict=True):
        assert torch.equal(mine["torch"], theirs["torch"])
        assert str(flat(mine["numpy"])) == str(flat(theirs["numpy"]))
    assert rows(one) == rows(other)


def flat(value: object) -> object:
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {key: flat(entry) for key, entry in value.items()}
    return [flat(entry) for entry in value] if isinstance(value, list | tuple) else value


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """The run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    write_set(folder / "set")
    finish(folder)
    return folder / "runs" / "a"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_signal_saves_where_the_step_ends_and_names_the_command(tmp_path, whole, number, workers):
    write_set(tmp_path / "set")
    process = start(tmp_path, f"data.num_workers={workers}")
    wait_for(tmp_path / "runs" / "a" / "checkpoints" / "last.ckpt", process)
    time.sleep(0.05)
    process.send_signal(number)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number, said
    assert f"stopped by {number.name} and saved. To go on: " in said
    assert "train.py name=a" in said
    assert "Traceback" not in said
    finish(tmp_path, f"data.num_workers={workers}")
    assert_equal_runs(tmp_path / "runs" / "a", whole)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_killed_run_goes_on_to_the_same_end(tmp_path, whole, workers):
    write_set(tmp_path / "set")
    rng = random.Random(workers)
    for _ in range(1 if os.environ.get("CI") else 5):
        process = start(tmp_path, f"data.num_workers={workers}")
        last = tmp_path / "runs" / "a" / "checkpoints" / "last.ckpt"
        before = last.stat().st_mtime_ns if last.exists() else 0
        while not last.exists() or last.stat().st_mtime_ns == before:
            if process.poll() is not None:
                break
            time.sleep(0.005)
        time.sleep(rng.random() * 0.3)
        process.kill()
        process.communicate()
    finish(tmp_path, f"data.num_workers={workers}")
    assert_equal_runs(tmp_path / "runs" / "a", whole)


def test_a_second_process_is_refused_and_a_killed_one_is_not_missed(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from kaleidogan.training.runs import Run\n"
        "with Run('a', Path(sys.argv[1])).lock(): print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    with (
        pytest.raises(OSError, match=rf"being trained by process {holder.pid} on"),
        Run("a", tmp_path).lock(),
    ):
        pass
    holder.kill()
    holder.communicate()
    with Run("a", tmp_path).lock():
        pass
    with Run("a", tmp_path).lock():
        pass


def test_a_folder_that_cannot_be_written_is_refused_at_the_start(tmp_path):
    (tmp_path / "runs").touch()
    with pytest.raises(OSError, match="cannot be written"), Run("a", tmp_path / "runs").lock():
        pass


@pytest.mark.slow
def test_a_wandb_run_that_was_interrupted_three_times_reads_as_one_story(tmp_path):
    write_set(tmp_path / "set")
    run = tmp_path / "runs" / "a"
    for ends in (signal.SIGTERM, signal.SIGKILL, signal.SIGINT):
        before = (run / "metrics.csv").read_text().count("\n") if run.exists() else 0
        process = start(tmp_path, "logger=wandb")
        wait_for(run / "metrics.csv", process)
        while (run / "metrics.csv").read_text().count("\n") < before + 2 and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(ends)
        process.communicate(timeout=60)
    finish(tmp_path, "logger=wandb")
    (record,) = run.glob("wandb/offline-run-*/*.wandb")
    story = wandb_file.read(record)["history"]
    assert len(list(run.glob("wandb/superseded/*"))) == 3
    logged = [row for row in story if "loss/generator" in row]
    told = rows(run)
    assert [row["progress/kimg"] for row in logged] == [float(row["progress/kimg"]) for row in told]
    assert [row["loss/generator"] for row in logged] == [float(row["loss/generator"]) for row in told]
    assert sorted({row["_step"] for row in story}) == [80 * tick for tick in range(11)]


@pytest.mark.slow
def test_plain_machines_and_odd_places(tmp_path):
    """No UTF-8, files for the owner alone, a space and an accent in the path."""
    folder = tmp_path / "my pictures \u00e9"
    folder.mkdir()
    write_set(folder / "set")
    environment = {**os.environ, "LC_ALL": "C", "LANG": "C"}
    code = (
        "import os, sys; os.umask(0o077); sys.argv[0] = 'train.py';"
        "from kaleidogan.cli import run; run('train', sys.argv[1:], 'train.py');"
        "run('generate', ['seeds=0-1'], 'generate.py')"
    )
    settings = [
        *TINY,
        *small("dcgan"),
        "model=dcgan",
        "data=shards",
        f"data.path={folder / 'set'}",
        "logger=csv",
        "name=a",
    ]
    done = subprocess.run(
        [sys.executable, "-c", code, *settings], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (folder / "runs" / "a" / "generated" / "seed0001.png").exists()
    assert (folder / "runs" / "a" / "checkpoints" / "last.ckpt").stat().st_mode & 0o777 == 0o600
