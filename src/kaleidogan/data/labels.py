"""Which class each picture belongs to: said by its folder, by a CSV or by a JSON file."""

import csv
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

MAX_CLASS = 65_535
CSV_HEADER = ["file", "label"]


@dataclass(frozen=True)
class Labels:
    """Class number by picture, and the classes' names by number; both empty if there are no classes."""

    numbers: dict[str, int]
    names: tuple[str, ...]


def read_labels(labels: str | None, pictures: list[str]) -> Labels:
    """Find the class of every picture.

    Labels that are all whole numbers are class numbers; any others are names, numbered in sorted order.

    Args:
        labels: None, `folders` (the first folder of a picture's path is its class) or a file: a .csv with
            the header `file,label`, or a .json, either {path: label} or {"labels": [[path, label], ...]}.
        pictures: paths within the source, which is also how the file names them.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file cannot be read, or says nothing of some picture.
    """
    if labels is None:
        return Labels({}, ())
    if labels == "folders":
        found: dict[str, object] = {name: name.split("/")[0] for name in pictures if "/" in name}
        _check_complete("labels=folders", "is in no folder", found, pictures)
        names = sorted(str(folder) for folder in set(found.values()))
        return _number(found, names)
    path = Path(labels).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"labels '{labels}' does not exist; give 'folders', a .csv or a .json file")
    found = _read_file(path)
    _check_complete(f"labels={labels}", "is not in it", found, pictures)
    mine = {name: found[name] for name in pictures}
    if all(isinstance(label, int) for label in mine.values()):
        return _check_numbers(path, mine)
    return _number(mine, sorted({str(label) for label in mine.values()}))


def _number(found: dict[str, object], names: list[str]) -> Labels:
    place = {name: number for number, name in enumerate(names)}
    return Labels({picture: place[str(label)] for picture, label in found.items()}, tuple(names))


def _check_numbers(path: Path, found: dict[str, object]) -> Labels:
    numbers: dict[str, int] = {}
    for picture, label in found.items():
        assert isinstance(label, int)
        if not 0 <= label <= MAX_CLASS:
            raise ValueError(f"{path}: label {label} of '{picture}' is not a class number, 0 to {MAX_CLASS}")
        numbers[picture] = label
    return Labels(numbers, tuple(str(number) for number in range(max(numbers.values()) + 1)))


def _check_complete(what: str, fault: str, found: dict[str, object], pictures: list[str]) -> None:
    missing = [name for name in pictures if name not in found]
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise ValueError(
            f"{what}: '{missing[0]}'{more} {fault}; "
            f"label every picture, or leave some out with exclude=[PATTERN]"
        )


def _read_file(path: Path) -> dict[str, object]:
    """Read a label file to labels by picture, each a name or a whole number."""
    readers = {".csv": _read_csv, ".json": _read_json}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"labels '{path}' ends in neither .csv nor .json")
    found: dict[str, object] = {}
    for picture, label in reader(path):
        if isinstance(label, bool) or not isinstance(label, int | str):
            raise ValueError(f"{path}: the label of '{picture}' is {label!r}, not a name or a whole number")
        found[picture.replace("\\", "/").removeprefix("./")] = label
    return found


def _read_csv(path: Path) -> Iterable[tuple[str, object]]:
    try:
        # utf-8-sig: spreadsheets put a mark before the first word.
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = [row for row in csv.reader(stream) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is not a CSV in UTF-8: {error}") from error
    if not rows or rows[0] != CSV_HEADER:
        raise ValueError(f"{path} begins with {','.join(rows[0]) if rows else 'nothing'!r}, not 'file,label'")
    if wrong := next((row for row in rows if len(row) != len(CSV_HEADER)), None):
        raise ValueError(f"{path}: a row is {','.join(wrong)!r}, not FILE,LABEL")
    numeric = all(row[1].isascii() and row[1].isdigit() for row in rows[1:])
    return [(row[0], int(row[1]) if numeric else row[1]) for row in rows[1:]]


def _read_json(path: Path) -> Iterable[tuple[str, object]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON in UTF-8: {error}") from error
    # A data set may have a single picture called "labels", so only a list makes it the other form.
    if isinstance(content, dict) and isinstance(content.get("labels"), list):
        for pair in content["labels"]:
            if not isinstance(pair, list) or len(pair) != 2 or not isinstance(pair[0], str):
                raise ValueError(f'{path}: {pair!r} in "labels" is not [path, label]')
        return [(picture, label) for picture, label in content["labels"]]
    if not isinstance(content, dict) or "labels" in content:
        raise ValueError(f'{path} is neither {{path: label}} nor {{"labels": [[path, label], ...]}}')
    return list(content.items())
