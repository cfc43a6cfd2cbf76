"""Signals that ask a training to stop: noted at once, answered where a step ends.

A handler that saved would do so between two instructions of a step, with one player ahead of the other.
"""

import os
import signal
import threading
import time
from types import FrameType
from typing import Any

STOP = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""Ctrl-C, and what batch systems send before they take the machine back."""
PATIENCE_S = 0.5
"""A second Ctrl-C is meant only so long after the first, in seconds: one may arrive twice."""

_received: list[tuple[int, float]] = []
_before: dict[int, Any] = {}


def listen() -> None:
    """Note the signals from now on. A second Ctrl-C quits at once; others are as patient as their sender."""
    if threading.current_thread() is threading.main_thread() and not _before:
        _before.update({number: signal.signal(number, note) for number in STOP})


def note(number: int, frame: FrameType | None = None) -> None:
    """Note a signal; as a handler, or for one that came to another process."""
    now = time.monotonic()
    if number == signal.SIGINT and _received and now - _received[0][1] > PATIENCE_S:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    _received.append((number, now))


def received() -> int:
    """The first signal that came; 0: none."""
    return _received[0][0] if _received else 0


def forget() -> None:
    """Listen no more, and forget what came: the next training of a sweep has heard nothing."""
    _received.clear()
    while _before:
        signal.signal(*_before.popitem())
