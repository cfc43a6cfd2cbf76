"""Launching: a process for each GPU of this machine, which end together, however one of them ends.

The ranks get the configuration as it was composed, through a file: so a sweep's job starts ranks of its own
and not the whole sweep again. This process trains nothing. It hands signals on, and watches.
"""

import ctypes
import json
import math
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from kaleidogan.training import signals

GRACE_S = 5.0
"""How long the others may take to end by themselves when one has failed, in seconds."""
LOOK_S = 0.05
KILL_WITH_PARENT = 1
"""PR_SET_PDEATHSIG in Linux's prctl.h."""


def launch(count: int, task: dict[str, Any]) -> Any:
    """Train in so many processes of this machine.

    Args:
        count: ranks.
        task: what `kaleidogan.cli.execute` takes, in plain values.

    Returns:
        What the first rank returned.

    Raises:
        SystemExit: with the ranks' status, if they were stopped by a signal and have saved.
        ChildProcessError: if one failed; it has said why.
    """
    ranks: list[subprocess.Popen[bytes]] = []
    before = {number: signal.signal(number, _HandOn(ranks)) for number in signals.STOP}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "task.json"
        about = {"parent": os.getpid(), "argv": sys.argv, "received": signals.received()}
        path.write_text(json.dumps({**task, **about}), encoding="utf-8")
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            port = found.getsockname()[1]
        try:
            ranks += [_start(rank, count, port, path) for rank in range(count)]
            status, culprit = _watch(ranks)
        finally:
            for rank in ranks:
                rank.kill()
                rank.wait()
            for number, handler in before.items():
                signal.signal(number, handler)
        said = _words(path, culprit).read_text(encoding="utf-8", errors="replace") if culprit else ""
        sys.stderr.write(said)
        if status - 128 in signals.STOP:
            sys.exit(status)
        if status:
            why = [line.partition(": ")[2] for line in said.splitlines() if line.startswith("Error")]
            reason = f" ({why[-1]})" if why else ""
            raise ChildProcessError(
                f"rank {culprit} ended with status {status}, and the others with it{reason}"
            )
        return json.loads(path.with_name("result.json").read_text(encoding="utf-8"))


def _start(rank: int, count: int, port: int, path: Path) -> subprocess.Popen[bytes]:
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    # What all have to complain of is said once: by the first, or by whoever failed before it.
    with _words(path, rank).open("wb") as words:
        return subprocess.Popen(
            [sys.executable, "-m", "kaleidogan.training.launch", str(path)],
            env={**os.environ, **{key: str(value) for key, value in {**place, **meeting}.items()}},
            stderr=words if rank else None,
            # A terminal's Ctrl-C reaches this process alone, which hands it on once.
            start_new_session=True,
        )


def _words(path: Path, rank: int) -> Path:
    """What a rank writes to its standard error."""
    return path.with_name(f"rank-{rank}.txt")


class _HandOn:
    """Hands signals on; a second Ctrl-C ends the ranks, since one that waits for another hears none."""

    def __init__(self, ranks: list[subprocess.Popen[bytes]]) -> None:
        self._ranks = ranks
        self._interrupted = math.inf

    def __call__(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        is_second = number == signal.SIGINT and now - self._interrupted > signals.PATIENCE_S
        if number == signal.SIGINT:
            self._interrupted = min(self._interrupted, now)
        for rank in self._ranks:
            if rank.poll() is None:
                rank.send_signal(signal.SIGKILL if is_second else number)
        if not self._ranks:
            signals.note(number)


def _watch(ranks: list[subprocess.Popen[bytes]]) -> tuple[int, int]:
    """Wait until all have ended, or one has failed and the others had their time.

    Returns:
        The status of the rank that failed first, 0 if none, and its number.
    """
    status, culprit, deadline = 0, 0, float("inf")
    while time.monotonic() < deadline:
        ended = [rank.poll() for rank in ranks]
        if not status and any(ended):
            culprit, code = next((rank, code) for rank, code in enumerate(ended) if code)
            status = code if code > 0 else 128 - code
            # One that leaves on a signal leaves the saving to the first.
            if code - 128 not in signals.STOP:
                deadline = time.monotonic() + GRACE_S
            if code < 0:
                print(f"rank {culprit} was ended by {signal.Signals(-code).name}", file=sys.stderr)
        if None not in ended:
            break
        time.sleep(LOOK_S)
    return status, culprit


def main() -> NoReturn:
    """Be one rank of a training that `launch` has started."""
    path = Path(sys.argv[1])
    task = json.loads(path.read_text(encoding="utf-8"))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(KILL_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != task.pop("parent"):
        sys.exit(1)  # it was killed before the line above
    sys.argv = task.pop("argv")
    if (received := task.pop("received")) or "SLURM_JOB_ID" in os.environ:
        signals.listen()
    if received:
        signals.note(received)
    from kaleidogan import cli

    result = cli.execute(**task)
    if os.environ["RANK"] == "0":
        path.with_name("result.json").write_text(json.dumps(result), encoding="utf-8")
    sys.exit()


if __name__ == "__main__":
    main()
