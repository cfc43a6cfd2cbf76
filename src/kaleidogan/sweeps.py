"""A sweep: which jobs it has, what they are called, whose folder is whose, and what became of each."""

import hashlib
import itertools
import json
import os
import re
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from kaleidogan.training.place import find_place
from kaleidogan.training.runs import ROOT, SWEEP, Run, slug

FOLDER = Path("runs/.sweeps")
ABOUT = "sweep.json"
RECORD = "job.json"
LONGEST_NAME = 100
LONGEST_VALUE = 24
LONGEST_TAG = 64
"""W&B refuses longer ones."""
_NUMBER = re.compile(r"[+-]?(\d+\.\d*|\.?\d+)(e[+-]?\d+)?", re.IGNORECASE)


def key_of(override: str) -> str:
    """The key that an override sets."""
    return override.lstrip("+~").partition("=")[0]


def value_of(override: str) -> str:
    """The value that an override gives, without its quotes; a number as Python writes it."""
    value = override.partition("=")[2]
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        return value[1:-1]
    return repr(float(value)) if _NUMBER.fullmatch(value) and not value.lstrip("+-").isdigit() else value


@dataclass(frozen=True)
class Sweep:
    """What all jobs of a sweep share; kept in its folder, for the jobs to read wherever they run.

    Args:
        name: the user's; None: each job is called by its model and data.
        fixed: the keys that are the same in all jobs.
        program: how the user runs the command.
    """

    name: str | None
    fixed: tuple[str, ...]
    program: str = ""


def plan(overrides: Sequence[str]) -> tuple[Sweep, list[list[str]]]:
    """Read what a sweep's command line asks for.

    Returns:
        What the jobs share, and the overrides of each job; of a search, which chooses as it goes, those of a
        job that it might begin with.

    Raises:
        hydra.errors.OverrideParseException: if an override cannot be read.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    choices: dict[str, list[str]] = {}
    swept = set()
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        key = override.get_key_element()
        if not override.is_sweep_override():
            choices[key] = [str(override.input_line)]
            continue
        swept.add(key_of(key))
        is_interval = not override.is_discrete_sweep()
        values = [override.value().start] if is_interval else override.sweep_string_iterator()  # type: ignore[union-attr]
        choices[key] = [f"{key}={value}" for value in values]
    fixed = tuple(key_of(key) for key in choices if key_of(key) not in swept)
    if is_search(overrides):
        choices = {key: options[:1] for key, options in choices.items()}
    jobs = [list(job) for job in itertools.product(*choices.values())]
    named = [value_of(o) for o in jobs[0] if key_of(o) == "name" and "name" in fixed]
    name = named[0] if named and named[0] != "null" else None
    return Sweep(name, fixed), jobs


def is_search(overrides: Sequence[str]) -> bool:
    """Whether a sweep's jobs are chosen as it goes, by what the ones before came to."""
    chosen = [value_of(o) for o in overrides if key_of(o) in ("sweep", "hydra/sweeper")]
    return bool(chosen) and chosen[-1] not in ("grid", "basic", "null", "")


def differences(overrides: Sequence[str], fixed: Sequence[str]) -> dict[str, str]:
    """What a job is given that not all jobs of its sweep are, by key."""
    given = [o for o in overrides if "=" in o and "hydra" not in key_of(o)]
    return {key_of(o): value_of(o) for o in given if key_of(o) not in fixed}


def name_of(start: str, differing: Mapping[str, str]) -> str:
    """Name a job by what differs, e.g. mine-learning_rate=0.0002-target=0.6; the same for the same overrides.

    Where a value or the name is not all told, a hash of what differs ends it.

    Args:
        start: of the name.
        differing: values by key. A key is told by its last word, or by as many as tell it from the others.
    """
    keys = _short_keys(list(differing))
    pieces, says_all = [start] if start else [], True
    for key in sorted(differing, key=keys.__getitem__):  # however it was typed
        word, is_whole = _short_value(differing[key])
        pieces.append(f"{keys[key]}={word}")
        says_all &= is_whole
    name = "-".join(pieces)
    if len(name) <= LONGEST_NAME and says_all:
        return name
    digest = hashlib.sha256(json.dumps(sorted(differing.items())).encode()).hexdigest()[:6]
    return f"{name[: LONGEST_NAME - 7]}-{digest}"


def _short_keys(keys: list[str]) -> dict[str, str]:
    found = {}
    for key in keys:
        words = key.replace("/", ".").split(".")
        endings = [".".join(words[-count:]) for count in range(1, len(words) + 1)]
        others = [f".{other.replace('/', '.')}" for other in keys if other != key]
        alone = [ending for ending in endings if not any(o.endswith(f".{ending}") for o in others)]
        found[key] = alone[0] if alone else endings[-1]
    return found


def _short_value(value: str) -> tuple[str, bool]:
    """A value as a name may hold it, and whether it says all of the value."""
    if _NUMBER.fullmatch(value) and not value.lstrip("+-").isdigit():
        return (short := f"{float(value):.4g}"), float(short) == float(value)
    if re.fullmatch(r"-?\d{1,20}", value):
        return value, True
    word = re.sub(r"[^\w.+,]+", "-", value, flags=re.ASCII).strip("-")[:LONGEST_VALUE].rstrip("-")
    return word or "none", word == value


def make_folder(sweep: Sweep, folder: Path | None = None) -> Path:
    """Make a sweep's folder, by default one that no other has, and write down there what its jobs share."""
    if folder is None:
        FOLDER.mkdir(parents=True, exist_ok=True)
        stem = FOLDER / time.strftime("%Y-%m-%d_%H-%M-%S")
        for number in itertools.count(1):  # two sweeps may begin within a second
            folder = stem if number == 1 else stem.with_name(f"{stem.name}_{number}")
            try:
                folder.mkdir()
            except FileExistsError:
                continue
            break
    assert folder is not None
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / ABOUT, asdict(sweep))
    return folder


class Job:
    """One job of a sweep, from within; a start that a batch system repeats is the same job.

    Args:
        folder: the job's own, in the sweep's.
        overrides: the job's.
    """

    def __init__(self, folder: Path, overrides: Sequence[str]) -> None:
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.name = ""
        about = json.loads((folder.parent / ABOUT).read_text(encoding="utf-8"))
        self._sweep = Sweep(**{**about, "fixed": tuple(about["fixed"])})
        self.program = self._sweep.program
        self._differing = differences(overrides, self._sweep.fixed)

    def take_run(self, name: str | None, prefix: str) -> str:
        """Find the job's own run, or make its folder; returns the run's name.

        Args:
            name: the user's; the job's run is NAME with what differs, whether it exists or not.
            prefix: what the run is called by where there is no name; a number is added if another has it.
        """
        differing = {key: value for key, value in self._differing.items() if key != "name"}
        if name is None:
            # The prefix says these.
            said = {"model"} if "data.path" in self._differing else {"model", "data"}
            differing = {key: value for key, value in differing.items() if key not in said}
        self.name = name_of(name or slug(prefix), differing)
        about = {
            "job": self.folder.as_posix(),
            "group": (self._sweep.name or self.folder.parent.name) if self._differing else None,
            "tags": [f"{key}={value}"[:LONGEST_TAG] for key, value in self._differing.items()],
        }
        if name is None:
            self.name = _claim(self.name, about, is_numbered=not differing)
        else:
            run = Run(self.name)
            run.folder.mkdir(parents=True, exist_ok=True)
            _write(run.folder / SWEEP, about)
        self.record("began")
        return self.name

    def record(self, state: Literal["began", "finished", "failed", "stopped"], reason: str = "") -> None:
        """Write down how the job stands, for the summary; of several ranks the first does, or who fails."""
        place, path = find_place(), self.folder / RECORD
        if place.size > 1 and path.exists():
            before = json.loads(path.read_text(encoding="utf-8"))["state"]
            if (state != "failed" and not place.is_first) or (state != "began" and before == "failed"):
                return
        _write(path, {"run": self.name, "state": state, "reason": reason})

    def discard(self) -> None:
        """Remove the run's folder if nothing was begun in it."""
        folder = ROOT / self.name
        if self.name and [path.name for path in folder.iterdir()] == [SWEEP]:
            shutil.rmtree(folder)


def _claim(name: str, about: dict[str, Any], is_numbered: bool) -> str:
    """Take the folder that this job has already, or else the first free of NAME, NAME-002, ...

    A folder appears with its owner's name in it, so that neither a kill nor another rank or job in between
    can have it twice, or leave it to nobody.
    """
    ROOT.mkdir(parents=True, exist_ok=True)
    for path in sorted(ROOT.glob(f"{name}*/{SWEEP}")):
        if _owner(path.parent) == about["job"]:
            return path.parent.name
    aside = Path(tempfile.mkdtemp(prefix=".claim-", dir=ROOT))
    aside.chmod(0o777 & ~_umask())
    _write(aside / SWEEP, about)
    for number in itertools.count(1):
        folder = ROOT / (name if number == 1 and not is_numbered else f"{name}-{number:03d}")
        try:
            if not folder.exists():
                aside.rename(folder)
                return folder.name
        except OSError:
            pass
        if _owner(folder) == about["job"]:
            break
    shutil.rmtree(aside)
    return folder.name


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _owner(folder: Path) -> str | None:
    path = folder / SWEEP
    return str(json.loads(path.read_text(encoding="utf-8"))["job"]) if path.is_file() else None


def _write(path: Path, content: Mapping[str, Any]) -> None:
    aside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    aside.write_text(json.dumps(content) + "\n", encoding="utf-8")
    aside.replace(path)


def summarize(folder: Path, expected: int) -> tuple[str, int]:
    """Say what became of a sweep's jobs.

    Args:
        folder: the sweep's.
        expected: how many jobs there should be at least.

    Returns:
        The text, and how many jobs did not finish.
    """
    folders = [path for path in folder.iterdir() if path.is_dir() and path.name.isdigit()]
    total = max(expected, len(folders))
    records = []
    for path in sorted(folders, key=lambda path: int(path.name)):
        if (path / RECORD).exists():
            records.append((path.name, json.loads((path / RECORD).read_text(encoding="utf-8"))))
    counts = Counter(record["state"] for _, record in records)
    missing = total - counts["finished"] - counts["failed"] - counts["stopped"]
    words = [f"{counts[state]} {state}" for state in ("finished", "failed", "stopped") if counts[state]]
    lines = [
        f"{total} job{'s' * (total != 1)}: " + ", ".join(words + [f"{missing} not ended"] * bool(missing))
    ]
    for number, record in records:
        if record["state"] in ("failed", "stopped"):
            which = f"job {number}" + (f", {ROOT / record['run']}" if record["run"] else "")
            lines.append(f"  {record['state']}: {which}: {record['reason'].splitlines()[0]}")
    about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    called = [record["run"] for _, record in records if record["run"]]
    if total == 1 and called:
        lines.append(f"its run: {ROOT / called[0]}")
    elif called:
        lines.append(f"to list the runs: kaleidogan runs group={about['name'] or folder.name}")
    return "\n".join(lines), total - counts["finished"]
