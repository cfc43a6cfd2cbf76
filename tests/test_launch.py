"""Trainings of several processes: they end together, and go on to the bit."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import TINY, small, write_set
from forked import begin_training, end
from kaleidogan.training import checkpoint, signals
from test_loading import break_sample
from test_resume import rows
from test_stopping import ROOT, assert_equal_runs, wait_for


def settings(model: str = "dcgan", *more: str) -> list[str]:
    tiny = [o for o in TINY if not o.startswith(("kimg", "tick_kimg"))]
    long = ("data=shards", "data.path=set", "logger=csv", "kimg=0.4", "tick_kimg=0.08", "name=a")
    return [*tiny, *small(model), f"model={model}", *long, "trainer.threads=1", *more]


def launch(folder: Path, *more: str, program: tuple[str, ...] = (sys.executable,)) -> subprocess.Popen[str]:
    """Begin a training as a user does."""
    return subprocess.Popen(
        [*program, str(ROOT / "train.py"), *settings("dcgan", *more)],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen[str], status: int = 0) -> str:
    said, _ = process.communicate(timeout=200)
    assert process.returncode == status, said
    return said


def last(folder: Path) -> Path:
    return folder / "runs" / "a" / "checkpoints" / "last.ckpt"


def await_tick(folder: Path, processes: list) -> None:
    """Wait until the next checkpoint is written."""
    before = last(folder).stat().st_mtime_ns if last(folder).exists() else 0
    while not last(folder).exists() or last(folder).stat().st_mtime_ns == before:
        assert processes[0].is_alive(), (folder / "said-0.txt").read_text()
        time.sleep(0.005)


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """The run of two ranks that nothing interrupted."""
    folder = tmp_path_factory.mktemp("two")
    write_set(folder / "set")
    end(begin_training(folder, 2, *settings()))
    said = (folder / "said-0.txt").read_text()
    assert "on 2 x cpu in 32-true" in said
    assert "DCGAN" not in (folder / "said-1.txt").read_text()
    return folder / "runs" / "a"


@pytest.mark.slow
def test_torchrun_trains_the_same(tmp_path, whole):
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone")
    write_set(tmp_path / "set")
    said = finish(launch(tmp_path, program=torchrun))
    assert said.count("DCGAN 16x16") == 1
    assert_equal_runs(tmp_path / "runs" / "a", whole)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_a_stop_is_agreed_on_and_goes_on_to_the_bit(tmp_path, whole, workers):
    """Whichever rank hears of it, twice within 10 ms."""
    write_set(tmp_path / "set")
    more = settings("dcgan", f"data.num_workers={workers}")
    for number, rank in ((signal.SIGTERM, 0), (signal.SIGINT, 1), (signal.SIGUSR1, 1)):
        processes = begin_training(tmp_path, 2, *more)
        await_tick(tmp_path, processes)
        for _ in range(2):
            os.kill(processes[rank].pid, number)
            time.sleep(0.01)
        end(processes, 128 + number)
        said = (tmp_path / "said-0.txt").read_text()
        assert f"stopped by {number.name} and saved" in said
        assert "Traceback" not in said
    end(begin_training(tmp_path, 2, *more))
    assert_equal_runs(tmp_path / "runs" / "a", whole)
    assert len(checkpoint.load(last(tmp_path))["random"]) == 2


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["rank 1", "launcher"])
def test_the_death_of_one_ends_all_and_leaves_no_orphan(tmp_path, whole, victim):
    write_set(tmp_path / "set")
    process = launch(tmp_path, "trainer.devices=2", "data.num_workers=1")
    wait_for(last(tmp_path), process)
    ranks = children(process.pid)
    family = [process.pid, *ranks, *(worker for rank in ranks for worker in children(rank))]
    assert len(family) == 5
    os.kill(ranks[1] if victim == "rank 1" else process.pid, signal.SIGKILL)
    said = finish(process, 1 if victim == "rank 1" else -9)
    if victim == "rank 1":
        assert "rank 1 was ended by SIGKILL" in said
        assert "Error: rank 1 ended with status 137, and the others with it" in said
    # A data worker looks every five seconds whether its rank is there.
    deadline = time.monotonic() + 15
    while any(alive(pid) for pid in family) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [pid for pid in family if alive(pid)]
    end(begin_training(tmp_path, 2, *settings("dcgan", "data.num_workers=1")))
    assert_equal_runs(tmp_path / "runs" / "a", whole)


@pytest.mark.slow
def test_the_launcher_hands_signals_on(tmp_path, whole):
    write_set(tmp_path / "set")
    process = launch(tmp_path, "trainer.devices=2")
    wait_for(last(tmp_path), process)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)
    assert "stopped by SIGTERM and saved" in finish(process, 143)
    end(begin_training(tmp_path, 2, *settings()))
    assert_equal_runs(tmp_path / "runs" / "a", whole)


@pytest.mark.slow
def test_a_signal_that_came_before_training_began_is_answered_before_the_first_step(tmp_path, whole):
    """To the second rank, as in a SLURM job, where signals are noted from the start."""
    write_set(tmp_path / "set")

    def hear(rank: int) -> None:
        signals.listen()
        if rank == 1:
            os.kill(os.getpid(), signal.SIGUSR1)

    end(begin_training(tmp_path, 2, *settings(), first=hear), 138)
    assert "stopped by SIGUSR1" in (tmp_path / "said-0.txt").read_text()
    assert not last(tmp_path).exists()
    end(begin_training(tmp_path, 2, *settings()))
    assert_equal_runs(tmp_path / "runs" / "a", whole)


@pytest.mark.slow
def test_a_rank_that_hangs_ends_the_others_within_the_timeout(tmp_path):
    write_set(tmp_path / "set")
    processes = begin_training(tmp_path, 2, *settings("dcgan", "trainer.timeout=5", "kimg=50"))
    await_tick(tmp_path, processes)
    os.kill(processes[1].pid, signal.SIGSTOP)
    processes[0].join(30)
    processes[1].kill()
    said = (tmp_path / "said-0.txt").read_text()
    assert processes[0].exitcode == 1, said
    assert "did not answer within trainer.timeout" in said
    checkpoint.load(last(tmp_path))


@pytest.mark.slow
def test_other_numbers_of_ranks_go_on_with_the_same_pictures(tmp_path, whole):
    """One, two, one: the pictures stay, the noise is another."""
    write_set(tmp_path / "set")
    for count, kimg in ((1, 0.16), (2, 0.24), (1, 0.4)):
        end(begin_training(tmp_path, count, *settings("dcgan", f"kimg={kimg}")))
    said = (tmp_path / "said-0.txt").read_text()
    assert "ranks: 1 in the checkpoint, 2 now: the same pictures in the same batches" in said
    assert "ranks: 2 in the checkpoint, 1 now" in said
    mine, theirs = rows(tmp_path / "runs" / "a"), rows(whole)
    assert [row["progress/kimg"] for row in mine] == [row["progress/kimg"] for row in theirs]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "more"),
    [
        ("stylegan2_ada", ("augment=ada", "model.r1_every=2", "model.path_length_every=2")),
        ("swagan", ("augment=ada", "model.r1_every=2")),
        ("progan", ("growth=schedule", "growth.rule.stabilise_kimg=0.1", "growth.fade_kimg=0.1")),
        ("dcgan", ("growth=schedule", "growth.rule.stabilise_kimg=0.1", "growth.fade_kimg=0.1")),
    ],
)
def test_every_model_goes_on_to_the_bit_on_two_ranks(tmp_path, model, more):
    growing = ("growth.batch_sizes=[8,8,8]",) if model == "progan" else ()
    chosen = settings(model, *more, *growing)
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
        write_set(tmp_path / name / "set")
    end(begin_training(tmp_path / "whole", 2, *chosen))
    for _ in range(2):
        processes = begin_training(tmp_path / "parts", 2, *chosen)
        await_tick(tmp_path / "parts", processes)
        os.kill(processes[1].pid, signal.SIGTERM)
        end(processes, 143)
    end(begin_training(tmp_path / "parts", 2, *chosen))
    assert_equal_runs(tmp_path / "parts" / "runs" / "a", tmp_path / "whole" / "runs" / "a")


@pytest.mark.slow
def test_damage_that_one_rank_meets_is_counted_by_all(tmp_path):
    index = write_set(tmp_path / "set")
    break_sample(index, 7)
    more = ("data.on_error=skip", "data.max_lost=0.1", "kimg=0.16")
    end(begin_training(tmp_path, 2, *settings("dcgan", *more)))
    assert {row["data/lost"] for row in rows(tmp_path / "runs" / "a")} == {"1.0"}


@pytest.mark.slow
def test_a_swept_job_starts_ranks_of_its_own_and_what_all_complain_of_is_said_once(tmp_path):
    write_set(tmp_path / "set")
    more = ("trainer.devices=2", "-m", "batch_size=8,9", "kimg=0.16", "optimized_metric=loss/generator")
    said = finish(launch(tmp_path, *more), 1)
    assert said.count("on 2 x cpu") == 1
    assert len(list((tmp_path / "runs").glob("a*/checkpoints/best.ckpt"))) == 1
    assert (
        said.count("does not divide batch_size=9 evenly") <= 3
    )  # by a rank, and in the job's and the sweep's words
    assert "2 jobs: 1 finished, 1 failed" in said
    assert "Traceback" not in said


def test_a_rank_without_its_launcher_ends_at_once(tmp_path):
    path = tmp_path / "task.json"
    task = {"parent": 1, "argv": [], "received": 0, "settings": {}, "choices": {}, "overrides": []}
    path.write_text(json.dumps(task))
    command = [sys.executable, "-m", "kaleidogan.training.launch", str(path)]
    assert subprocess.run(command, env={**os.environ, "RANK": "0"}).returncode == 1
