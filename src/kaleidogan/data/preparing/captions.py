"""What is said of each picture besides its class: a caption, and where it is from."""

import csv
import json
from pathlib import Path, PurePosixPath

from kaleidogan.data.preparing.labels import plain_path
from kaleidogan.data.preparing.pictures import PictureError
from kaleidogan.data.preparing.sources import Source

PROVENANCE = "provenance.jsonl"
"""In a source: a line of JSON a picture, with its path under "file"; `kaleidogan collect` writes it."""
CREDITS = "CREDITS.md"
"""The same for people; it goes along with the set."""
CSV_HEADER = ["file", "caption"]


def read_captions(captions: str | None, pictures: list[str], files: Source) -> dict[str, str]:
    """Find the captions of pictures; a picture may have none.

    Args:
        captions: None, `txt` (a file of the same name that ends in .txt) or a file: a .csv with the header
            `file,caption`, or a .json {path: caption}.
        pictures: paths within the source.
        files: the source.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be read, or has a caption for none of the pictures.
    """
    if captions is None:
        return {}
    if captions == "txt":
        found = _read_beside(pictures, files)
    else:
        path = Path(captions).expanduser()
        if not path.is_file():
            raise FileNotFoundError(f"captions '{captions}' does not exist; give txt, a .csv or a .json file")
        given = _read_csv(path) if path.suffix.lower() == ".csv" else _read_json(path)
        given = {plain_path(name): text for name, text in given.items()}
        found = {name: given[name] for name in pictures if name in given}
    if not found:
        raise ValueError(f"captions={captions}: none of the {len(pictures)} pictures has one")
    return found


def _read_beside(pictures: list[str], files: Source) -> dict[str, str]:
    texts = {member.name for member in files.members if member.refused is None}
    found = {}
    for picture in pictures:
        name = str(PurePosixPath(picture).with_suffix(".txt"))
        if name in texts:
            try:
                found[picture] = files.read(name).decode("utf-8").strip()
            except (PictureError, UnicodeDecodeError) as error:
                raise ValueError(f"caption '{name}' cannot be read: {error}") from error
    return found


def _read_csv(path: Path) -> dict[str, str]:
    try:
        # utf-8-sig: spreadsheets put a mark before the first word.
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = [row for row in csv.reader(stream) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is not a CSV in UTF-8: {error}") from error
    if not rows or rows[0] != CSV_HEADER:
        raise ValueError(
            f"{path} begins with {','.join(rows[0]) if rows else 'nothing'!r}, not 'file,caption'"
        )
    if wrong := next((row for row in rows if len(row) != len(CSV_HEADER)), None):
        raise ValueError(f"{path}: a row is {','.join(wrong)!r}, not FILE,CAPTION")
    return {row[0]: row[1] for row in rows[1:]}


def _read_json(path: Path) -> dict[str, str]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON in UTF-8: {error}") from error
    if not isinstance(content, dict) or not all(isinstance(text, str) for text in content.values()):
        raise ValueError(f"{path} is not {{path: caption}}")
    return content


def read_provenance(files: Source) -> dict[str, dict[str, object]]:
    """Read where a source's pictures are from, by path; empty if it does not say.

    Raises:
        ValueError: if a line cannot be read.
    """
    if all(member.name != PROVENANCE for member in files.members):
        return {}
    found = {}
    for number, line in enumerate(files.read(PROVENANCE).decode("utf-8", "replace").splitlines(), start=1):
        try:
            about = json.loads(line)
            found[about.pop("file")] = about
        except (ValueError, AttributeError, KeyError) as error:
            raise ValueError(f"{PROVENANCE}, line {number} is not JSON with a 'file': {line[:60]}") from error
    return found
