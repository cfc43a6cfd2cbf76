"""A run's folder: `runs/NAME/` with its checkpoints, samples, metrics, configuration and state."""

import fcntl
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import time
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from kaleidogan.training import slurm

ROOT = Path("runs")
SWEEP = "sweep.json"
"""In the folder of a run that is a job of a sweep: which job, and the group and tags that it has by it."""
_HELD: set[int] = set()
_NAME = re.compile(r"[\w.+=,-]+", re.ASCII)


class Run:
    """One training's folder, over all its starts.

    Args:
        name: of the folder under `runs/`; it continues what is there.
        root: the folder that holds the runs.
        rank: of this process among those that train; the first speaks for all.
    """

    def __init__(self, name: str, root: Path = ROOT, rank: int = 0) -> None:
        if not _NAME.fullmatch(name) or name.startswith("."):
            raise ValueError(f"name '{name}' may hold only letters, digits and any of . _ + = , -")
        self.name = name
        self.folder = root / name
        self._rank = rank
        self.speaks = rank == 0
        """Whether what is said through it is said for all ranks."""
        self.checkpoints = self.folder / "checkpoints"
        self.last = self.checkpoints / "last.ckpt"
        self.previous = self.checkpoints / "previous.ckpt"
        self.samples = self.folder / "samples"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run's folder for this process; it is free again when the process ends, however it ends.

        The first rank holds it for the others.
        The kernel holds the lock, so a run that was killed, or that goes on at another node, is not locked
        out by what it left. What is written into the file is for people.

        Raises:
            OSError: if another process holds it, or the folder cannot be written to.
        """
        if self._rank > 0:
            yield
            return
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise OSError(
                f"the run's folder '{self.folder}' cannot be written to: {error.strerror}"
            ) from error
        try:
            _take(handle)
        except BlockingIOError:
            holder = os.read(handle, 200).decode(errors="replace").strip() or "another process"
            os.close(handle)
            raise OSError(
                f"run '{self.name}' is being trained by {holder}; choose another name=, or stop that one"
            ) from None
        _HELD.add(handle)
        os.ftruncate(handle, 0)
        os.write(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        try:
            yield
        finally:
            _HELD.discard(handle)
            os.close(handle)

    @property
    def id(self) -> str:
        """The W&B run's id: drawn once, kept in `state.json`, the same over all starts."""
        own, given = str(self._state()["id"]), sweep_run_id()
        if given and given != own:
            raise ValueError(
                f"run '{self.name}' is W&B's run {own}, but its agent asks for {given}: "
                "leave name= out of the sweep, and each run gets a name of its own"
            )
        return own

    @property
    def sweep(self) -> dict[str, Any]:
        """The `job`, `group` and `tags` of a run that a sweep began; empty for another."""
        path = self.folder / SWEEP
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}

    def record_status(
        self, status: Literal["running", "finished", "stopped", "failed"], reason: str = ""
    ) -> None:
        """Write down how the run stands, and how long it was trained in all its starts.

        One that says that it is running though nobody holds its lock was killed; of that start the time up
        to its last checkpoint counts.
        """
        if status == "failed":
            self.note(f"{f'rank {self._rank} ' * (not self.speaks)}ended by {reason}")
        if not self.speaks:
            return
        state, now = self._state(), time.time()
        if state.get("status") == "running":
            killed = status == "running"
            until = now if not killed else self.last.stat().st_mtime if self.last.exists() else 0.0
            state["seconds"] = state.get("seconds", 0.0) + max(0.0, until - state["since"])
        state |= {"status": status, "reason": reason, "since": now}
        self._write(state)

    def _state(self) -> dict[str, Any]:
        path = self.folder / "state.json"
        if path.exists():
            return dict(json.loads(path.read_text(encoding="utf-8")))
        return self._begin({})

    def _begin(self, about: dict[str, Any]) -> dict[str, Any]:
        number = sweep_run_id() or secrets.token_hex(4)
        state = {"id": number, "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **about}
        self._write(state)
        return state

    def _write(self, state: dict[str, Any]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        aside = self.folder / f".state.{os.getpid()}.tmp"
        aside.write_text(json.dumps(state) + "\n", encoding="utf-8")
        aside.replace(self.folder / "state.json")  # whole, or not there

    def begin_in_job(self, job: str, overrides: Sequence[str]) -> None:
        """Note the SLURM job that a run without a given name begins in, so that its restarts find it."""
        self._begin({"job": job, "overrides": list(overrides)})

    def has_begun_in(self, job: str, overrides: Sequence[str]) -> bool:
        """Whether `begin_in_job` noted this: a job may train several runs, one after the other."""
        try:
            state = self._state() if (self.folder / "state.json").exists() else {}
        except ValueError:
            return False
        return (state.get("job"), state.get("overrides")) == (job, list(overrides))

    def checkpoint_to_resume(self, resume: str) -> list[Path]:
        """List where to continue from, best first; empty to start anew.

        Args:
            resume: "auto": this run's own newest; "never": nowhere; else the path of a checkpoint or run,
                from which a run that has none of its own begins.

        Raises:
            FileNotFoundError: if a path is given and nothing is there.
            ValueError: on "never", if the run has a checkpoint already.
        """
        own = [path for path in (self.last, self.previous) if path.exists()]
        if resume == "auto":
            return own
        if resume == "never":
            if own:
                raise ValueError(
                    f"run '{self.name}' has a checkpoint already: choose another name=, or resume=auto"
                )
            return []
        # A start that is repeated after an interruption goes on with what it made of PATH.
        return own or find_checkpoints(Path(resume))

    def say(self, text: str) -> None:
        """Print a line that all ranks know, once, and keep it in the run's `log.txt`."""
        if self.speaks:
            self.tell(text)

    def tell(self, text: str) -> None:
        """Print a line that this rank alone knows, and keep it in the run's `log.txt`."""
        text = f"rank {self._rank}: {text}" if self._rank else text
        print(text, flush=True)
        self.note(text)

    def note(self, text: str) -> None:
        """Keep a line in the run's `log.txt`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "log.txt").open("a", encoding="utf-8") as stream:
            stream.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {text}\n")

    def full_disk(self) -> str:
        """What to say when the disk of the run's folder is full."""
        free = shutil.disk_usage(self.folder).free
        return (
            f"the disk is full: '{self.folder}' has {free:,} bytes left; the last checkpoint is good. "
            "Make room, then start again with the same name to go on"
        )

    def record_start(self, config_yaml: str, overrides: Sequence[str]) -> None:
        """Write down the resolved configuration, and what was asked for at this start."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "config.yaml").write_text(config_yaml, encoding="utf-8")
        self.note(f"start: {' '.join(overrides) or '(no overrides)'}")
        path = self.folder / "overrides.json"  # what a start that names only the run takes over
        path.write_text(json.dumps(list(overrides)) + "\n", encoding="utf-8")


def _take(handle: int) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        time.sleep(0.1)  # `kaleidogan runs` may have tried the lock in this moment
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _let_go() -> None:
    """In a forked child: a data worker that outlives its killed parent must not hold the lock on."""
    while _HELD:
        os.close(_HELD.pop())


os.register_at_fork(after_in_child=_let_go)


def unnamed_run(prefix: str, overrides: Sequence[str], root: Path = ROOT) -> Run:
    """Begin a run whose name the user did not give; in a SLURM job that was requeued, go on with its own.

    Args:
        prefix: of its name.
        overrides: what the user typed.
        root: the folder that holds the runs.
    """
    job = slurm.job_id()
    if job is None:
        return new_run(prefix, root)
    if slurm.restarts():
        for path in sorted(root.glob("*/state.json"), reverse=True):
            run = Run(path.parent.name, root)
            if run.has_begun_in(job, overrides):
                return run
    run = new_run(prefix, root)
    run.begin_in_job(job, overrides)
    return run


def sweep_run_id() -> str | None:
    """The id of the W&B run that `wandb agent` has started this process for, if it has."""
    return os.environ.get("WANDB_RUN_ID") if os.environ.get("WANDB_SWEEP_ID") else None


def name_prefix(data: Mapping[str, Any], choices: Mapping[str, Any]) -> str:
    """What to call a run that has no name: by its model, and the data's folder or option."""
    path = data.get("path")
    return (
        f"{choices['model']}-{Path(path).name if path and not path.startswith('pipe:') else choices['data']}"
    )


def slug(text: str) -> str:
    """A text as a folder's name: what is not a letter or digit becomes a hyphen."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^\w.+]+", "-", plain).strip("-.") or "run"


def new_run(prefix: str, root: Path = ROOT) -> Run:
    """Begin a run with the next free number, e.g. dcgan-shapes-003, and make its folder.

    Under `wandb agent` the agent's id takes the number's place: W&B starts the same run again after it was
    preempted, and agents on several machines share no counter.

    Args:
        prefix: what is not a letter or digit in it becomes a hyphen.
        root: the folder that holds the runs.
    """
    start = slug(prefix)
    root.mkdir(parents=True, exist_ok=True)
    if given := sweep_run_id():
        return Run(f"{start}-{given}", root)
    number = 1 + max(
        (
            int(m[1])
            for path in root.iterdir()
            if (m := re.fullmatch(re.escape(start) + r"-(\d+)", path.name))
        ),
        default=0,
    )
    while True:  # another start may take the number in this moment
        try:
            (root / f"{start}-{number:03d}").mkdir()
        except FileExistsError:
            number += 1
        else:
            return Run(f"{start}-{number:03d}", root)


def find_checkpoints(path: Path) -> list[Path]:
    """List the checkpoints that a path means, best first: a file itself, or those of a run's folder.

    Raises:
        FileNotFoundError: if there is none.
    """
    if path.is_file():
        return [path]
    found = [
        p for p in (path / "checkpoints" / "last.ckpt", path / "checkpoints" / "previous.ckpt") if p.exists()
    ]
    if not found:
        raise FileNotFoundError(
            f"no checkpoint at '{path}': name a .ckpt file, or a run's folder like runs/NAME"
        )
    return found


def newest_checkpoints(root: Path = ROOT) -> list[Path]:
    """List the checkpoints of the run that was trained last, best first.

    Raises:
        FileNotFoundError: if no run has one.
    """
    found = sorted(root.glob("*/checkpoints/*.ckpt"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise FileNotFoundError(
            f"no run with a checkpoint under '{root.absolute()}': train one first, or set checkpoint=FILE"
        )
    return find_checkpoints(found[-1].parent.parent)


def git_commit(folder: Path = Path(__file__).parent) -> str | None:
    """The commit of this code, with `-dirty` when it was changed; None where it is not under git."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
