"""What each picture is conditioned on, a class or numbers: said by its folder, by a CSV or by a JSON file."""

import csv
import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from kaleidogan.data.files import INDEX
from kaleidogan.data.preparing.sources import Source

MAX_CLASS = 65_535
MOST = 3e38
"""What a number of single precision holds; not-a-number is not below it either."""
CSV_HEADER = ["file", "label"]


@dataclass(frozen=True)
class Labels:
    """What a set's pictures are conditioned on: classes, or numbers; all empty if there are none.

    Attributes:
        numbers: class number by picture.
        names: the classes' names by number.
        conditions: numbers by picture: several labels of 0 or 1, or anything that is measured.
        condition_names: what they stand for.
    """

    numbers: dict[str, int] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    conditions: dict[str, tuple[float, ...]] = field(default_factory=dict)
    condition_names: tuple[str, ...] = ()


def read_labels(labels: str | None, pictures: list[str], files: Source) -> Labels:
    """Find the class, or the conditions, of every picture.

    Labels that are all whole numbers are class numbers; other single ones are names, numbered in sorted
    order. Several to a picture are conditions: numbers as they are, names as one column of 0 and 1 for each.

    Args:
        labels: None, `folders` (the first folder of a picture's path is its class) or a file: a .csv with
            the header `file,label`, or `file` and any names of columns that hold numbers; or a .json, either
            {path: label} or {"labels": [[path, label], ...]}, a label being a number, a name or a list; or
            `cls`, a file beside each picture that holds its class, as WebDataset has it.
        files: the source.
        pictures: paths within the source, which is also how the file names them.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file cannot be read, or says nothing of some picture.
    """
    if labels is None:
        return Labels()
    if labels == "folders":
        found: dict[str, object] = {name: name.split("/")[0] for name in pictures if "/" in name}
        _check_complete("labels=folders", "is in no folder", found, pictures)
        names = sorted(str(folder) for folder in set(found.values()))
        return _number(found, names)
    if labels == "cls":
        found = _read_beside(pictures, files)
        _check_complete("labels=cls", "has no .cls file beside it", found, pictures)
        if all(isinstance(label, int) for label in found.values()):
            numbers = _check_numbers(Path("labels=cls"), found)
            return replace(numbers, names=_names_of_set(files) or numbers.names)
        return _number(found, sorted({str(label) for label in found.values()}))
    path = Path(labels).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"labels '{labels}' does not exist; give 'folders', a .csv or a .json file")
    found, names = _read_file(path)
    _check_complete(f"labels={labels}", "is not in it", found, pictures)
    mine = {name: found[name] for name in pictures}
    if any(isinstance(label, tuple) for label in mine.values()):
        return _condition(path, mine, names)
    if all(isinstance(label, int) for label in mine.values()):
        return _check_numbers(path, mine)
    return _number(mine, sorted({str(label) for label in mine.values()}))


def _names_of_set(files: Source) -> tuple[str, ...]:
    """The classes' names, where the source is a data set."""
    if all(member.name != INDEX for member in files.members):
        return ()
    return tuple(json.loads(files.read(INDEX)).get("label_names", ()))


def _read_beside(pictures: list[str], files: Source) -> dict[str, object]:
    names = {member.name for member in files.members if member.refused is None}
    found: dict[str, object] = {}
    for picture in pictures:
        if (name := str(PurePosixPath(picture).with_suffix(".cls"))) in names:
            text = files.read(name).decode("utf-8", "replace").strip()
            found[picture] = int(text) if text.isascii() and text.isdigit() else text
    return found


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


def _condition(path: Path, found: dict[str, object], names: list[str]) -> Labels:
    """Make several labels a picture to as many numbers for each."""
    rows: dict[str, tuple[object, ...]] = {}
    for picture, label in found.items():
        if not isinstance(label, tuple):
            raise ValueError(f"{path}: '{picture}' has one label, {label!r}, and others have a list")
        rows[picture] = label
    entries = {entry for row in rows.values() for entry in row}
    if entries and all(isinstance(entry, str) for entry in entries):
        every = sorted(str(entry) for entry in entries)
        many = {picture: tuple(float(name in row) for name in every) for picture, row in rows.items()}
        return Labels(conditions=many, condition_names=tuple(every))
    width = len(names) or len(next(iter(rows.values())))
    numbers: dict[str, tuple[float, ...]] = {}
    for picture, row in rows.items():
        values = tuple(float(v) for v in row if isinstance(v, int | float) and abs(v) <= MOST)
        if len(row) != width or len(values) != width or not width:
            raise ValueError(f"{path}: the labels of '{picture}' are {list(row)}, not {width or 1} numbers")
        numbers[picture] = values
    given = names or [str(number) for number in range(width)]
    return Labels(conditions=numbers, condition_names=tuple(given))


def _check_complete(what: str, fault: str, found: dict[str, object], pictures: list[str]) -> None:
    missing = [name for name in pictures if name not in found]
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise ValueError(
            f"{what}: '{missing[0]}'{more} {fault}; "
            f"label every picture, or leave some out with exclude=[PATTERN]"
        )


def _read_file(path: Path) -> tuple[dict[str, object], list[str]]:
    """Read a label file: by picture a name, a whole number or a tuple of either; and the columns' names."""
    names: list[str] = []
    if path.suffix.lower() == ".csv":
        pairs, names = _read_csv(path)
    elif path.suffix.lower() == ".json":
        pairs = _read_json(path)
    else:
        raise ValueError(f"labels '{path}' ends in neither .csv nor .json")
    found: dict[str, object] = {}
    for picture, label in pairs:
        if label in ("", [], ()):
            raise ValueError(f"{path}: '{picture}' has an empty label; name its class, or leave the row out")
        several = tuple(label) if isinstance(label, list | tuple) else None
        if several is None and (isinstance(label, bool) or not isinstance(label, int | str)):
            raise ValueError(f"{path}: the label of '{picture}' is {label!r}, not a name or a whole number")
        name, value = plain_path(picture), label if several is None else several
        if found.setdefault(name, value) != value:
            raise ValueError(f"{path}: '{picture}' has two labels, {found[name]!r} and {value!r}")
    return found, names


def plain_path(name: str) -> str:
    """A path as sources name it: with `/`, and from the source on."""
    return name.replace("\\", "/").removeprefix("./")


def _read_csv(path: Path) -> tuple[Iterable[tuple[str, object]], list[str]]:
    try:
        # utf-8-sig: spreadsheets put a mark before the first word.
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = [row for row in csv.reader(stream) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is not a CSV in UTF-8: {error}") from error
    header = rows[0] if rows else []
    if len(header) < len(CSV_HEADER) or header[0] != CSV_HEADER[0]:
        raise ValueError(f"{path} begins with {','.join(header) or 'nothing'!r}, not 'file,label'")
    if wrong := next((row for row in rows if len(row) != len(header)), None):
        fields = "FILE,LABEL" if header == CSV_HEADER else f"FILE and {len(header) - 1} numbers"
        raise ValueError(f"{path}: a row is {','.join(wrong)!r}, not {fields}")
    if header == CSV_HEADER:
        numeric = all(row[1].isascii() and row[1].isdigit() for row in rows[1:])
        return [(row[0], int(row[1]) if numeric else row[1]) for row in rows[1:]], []
    return [(row[0], tuple(_to_number(path, row, text) for text in row[1:])) for row in rows[1:]], header[1:]


def _to_number(path: Path, row: list[str], text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise ValueError(f"{path}: {text!r} in the row {','.join(row)!r} is not a number") from error


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
