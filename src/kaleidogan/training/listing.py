"""What runs there are: how each stands, how far and how good it is, and what tells it from the others.

All of it is read from small files in the runs' folders: no checkpoint is opened, and PyTorch not imported.
"""

import csv
import fcntl
import io
import json
import shutil
import sys
import time
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

import yaml

from kaleidogan.training.runs import SWEEP

USUAL_METRIC = "metric/swd"
"""What the callbacks log unless they are told not to."""
FOR_ONCE = {"name", "resume", "allow_changes", "debug", "launcher", "sweep", "kimg"}
"""Overrides that do not tell runs apart, or that stand in a column of their own."""
WIDEST = 40


@dataclass(frozen=True)
class Listed:
    """One run, as a line of the list.

    Args:
        name: of the run and its folder.
        state: running, finished, stopped, failed, or killed: it said that it was running, but no process is.
        reason: of a stop or failure.
        kimg: thousands of images seen, at the last row of metrics.csv.
        of_kimg: the training's length.
        metric: what `last` and `best` are of; None: nothing that was recorded.
        last: its last value.
        best: the least of it, or the most.
        direction: which of the two is better: minimize, or maximize if the run says so of this metric.
        seconds: trained, over all starts.
        written: when something was last recorded, in seconds since 1970.
        overrides: what was typed, by key.
        group: of the sweep that it belongs to.
    """

    name: str
    state: str
    reason: str
    kimg: float
    of_kimg: float | None
    metric: str | None
    last: float | None
    best: float | None
    direction: str
    seconds: float | None
    written: float
    overrides: dict[str, str]
    group: str | None


def list_runs(
    *,
    root: str = "runs",
    pattern: str = "*",
    group: str | None = None,
    metric: str | None = None,
    sort: Literal["written", "name", "state", "kimg", "metric", "time"] = "written",
    output: Literal["table", "csv", "json"] = "table",
) -> None:
    """List the runs: how each stands, how far and how good it is, and what tells it from the others.

    Args:
        root: the folder that holds the runs.
        pattern: only runs whose name fits, e.g. dcgan-*.
        group: only runs of this sweep: its name, or the date and time that it began.
        metric: the scalar to show; null: what each run optimises, else metric/swd.
        sort: written (the latest last), name, state, kimg, metric (the best value first) or time (trained).
        output: table for people; csv or json, which have all of it, for programs.
    """
    folder = Path(root)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder '{root}': nothing was trained here; set root=FOLDER")
    names = sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")
    read = [read_run(folder / name, metric) for name in names if fnmatchcase(name, pattern)]
    found = [run for run in read if run is not None and group in (None, run.group)]
    found = in_order(found, sort)
    differing = differing_overrides(found)
    if output == "json":
        print(json.dumps([vars(run) for run in found], indent=1))
    elif output == "csv":
        print(as_csv(found, differing), end="")
    else:
        width = shutil.get_terminal_size((160, 24)).columns
        print(as_table(found, differing, width if sys.stdout.isatty() else max(width, 160)))


def read_run(folder: Path, metric: str | None = None) -> Listed | None:
    """Read one run's line from its folder; None if there is no run in it."""
    state, sweep = _json(folder / "state.json"), _json(folder / SWEEP)
    if not state and not sweep and not (folder / "config.yaml").exists():
        return None
    config = _yaml(folder / "config.yaml")
    rows = folder / "metrics.csv"
    wanted = metric or config.get("optimized_metric") or USUAL_METRIC
    images, values = _read_metrics(rows, wanted)
    own = config.get("optimized_metric") == wanted
    direction = config.get("optimized_direction", "minimize") if own else "minimize"
    length = config.get("kimg")
    status = _status(folder, state, images, length)
    files = [path for path in (rows, folder / "log.txt", folder / "state.json", folder) if path.exists()]
    written = max(path.stat().st_mtime for path in files[:-1] or files)
    seconds = state.get("seconds", 0.0) if "since" in state else None
    if seconds is not None and status in ("running", "killed"):
        seconds += max(0.0, (time.time() if status == "running" else written) - state["since"])
    typed = _json(folder / "overrides.json") or []
    return Listed(
        name=folder.name,
        state=status,
        reason=state.get("reason", "") if status in ("stopped", "failed") else "",
        kimg=images / 1000 or (length or 0.0) * (status == "finished"),
        of_kimg=length,
        metric=wanted if values else None,
        last=values[-1] if values else None,
        best=(max if direction == "maximize" else min)(values) if values else None,
        direction=direction,
        seconds=seconds,
        written=written,
        overrides=dict(_split(override) for override in typed),
        group=sweep.get("group"),
    )


def _status(folder: Path, state: dict[str, Any], images: int, length: float | None) -> str:
    if state.get("status") not in (None, "running"):
        return str(state["status"])
    if is_locked(folder):
        return "running"
    if "status" in state:
        return "killed"
    return "finished" if length and images >= length * 1000 else "unknown"


def is_locked(folder: Path) -> bool:
    """Whether a process trains the run: the kernel lets go of the lock of one that is gone."""
    try:
        with (folder / "lock").open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _read_metrics(path: Path, name: str) -> tuple[int, list[float]]:
    """The images seen at the last whole row, and the values of a column that are numbers."""
    if not path.exists():
        return 0, []
    # The csv module takes four times as long; no cell has a comma or a quote.
    header, *lines = path.read_text(encoding="utf-8").splitlines() or [""]
    columns = header.split(",")
    whole = [line for line in lines if line.count(",") == len(columns) - 1]
    images = int(whole[-1].split(",")[columns.index("images")] or 0) if whole and "images" in columns else 0
    if name not in columns:
        return images, []
    place = columns.index(name)
    cells = (line.split(",", place + 1)[place] for line in whole)
    return images, [value for cell in cells if cell and (value := float(cell)) == value]


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # none yet, or half of it
        return {}


def _yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        return {}
    # Only what stands at the top is wanted, and a whole configuration takes 20 ms to read.
    keys = ("kimg:", "optimized_metric:", "optimized_direction:")
    lines = [line for line in text.splitlines() if line.startswith(keys)]
    return dict(yaml.safe_load("\n".join(lines)) or {})


def _split(override: str) -> tuple[str, str]:
    key, _, value = override.lstrip("+~").partition("=")
    return key, value.strip("'\"")


def in_order(found: list[Listed], sort: str) -> list[Listed]:
    """Sort runs; those that lack what is sorted by come last."""
    if sort in ("name", "state"):
        return sorted(found, key=lambda run: (getattr(run, sort), run.name))
    if sort == "metric":
        signs = {"minimize": 1, "maximize": -1}
        return sorted(found, key=lambda run: (run.best is None, signs[run.direction] * (run.best or 0.0)))
    key = {"written": "written", "kimg": "kimg", "time": "seconds"}[sort]
    return sorted(found, key=lambda run: (getattr(run, key) is None, getattr(run, key) or 0.0))


def differing_overrides(found: list[Listed]) -> list[str]:
    """The keys that were not typed alike for all runs, in the order in which they were typed."""
    keys = dict.fromkeys(key for run in found for key in run.overrides if key not in FOR_ONCE)
    return [key for key in keys if len({run.overrides.get(key) for run in found}) > 1]


def as_csv(found: list[Listed], differing: list[str]) -> str:
    """The list as comma-separated values, a column for each override that differs."""
    stream = io.StringIO()
    names = [name for name in Listed.__dataclass_fields__ if name != "overrides"]
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([*names, *differing])
    for run in found:
        values = [getattr(run, name) for name in names]
        writer.writerow([*values, *(run.overrides.get(key, "") for key in differing)])
    return stream.getvalue()


def as_table(found: list[Listed], differing: list[str], width: int) -> str:
    """The list for people: aligned, and not wider than the terminal, where the overrides give way first."""
    if not found:
        return "no runs"
    rows = [("run", "state", "kimg", "last", "best", "trained", "written", "what differs")]
    metrics = {run.metric for run in found if run.metric}
    for run in found:
        differs = [
            f"{key.rpartition('.')[2]}={run.overrides[key]}" for key in differing if key in run.overrides
        ]
        of = "" if run.of_kimg is None else f"/{run.of_kimg:g}"
        rows.append(
            (
                run.name,
                run.state,
                f"{run.kimg:g}{of}",
                "-" if run.last is None else f"{run.last:.4g}",
                "-" if run.best is None else f"{run.best:.4g}",
                "-" if run.seconds is None else _duration(run.seconds),
                time.strftime("%m-%d %H:%M", time.localtime(run.written)),
                " ".join(differs),
            )
        )
    sizes = [max(len(row[place]) for row in rows) for place in range(7)]
    sizes[0] = min(sizes[0], max(WIDEST, width - sum(sizes[1:]) - 14))
    lines = []
    for row in rows:
        name = row[0] if len(row[0]) <= sizes[0] else f"{row[0][: sizes[0] - 8]}..{row[0][-6:]}"
        cells = [name.ljust(sizes[0]), row[1].ljust(sizes[1])]
        cells += [cell.rjust(size) for cell, size in zip(row[2:7], sizes[2:], strict=True)]
        lines.append("  ".join([*cells, row[7]])[:width].rstrip())
    if metrics:
        lines += ["", f"last, best: {' or '.join(sorted(metrics))}"]
    lines += [f"{run.state}: {run.name}: {run.reason.splitlines()[0]}"[:width] for run in found if run.reason]
    return "\n".join(lines)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}" if hours else f"{minutes}m{rest:02d}"
