"""A folder of pictures that were collected: their names, where each comes from, and how far the work has got.

`journal.jsonl` has a line for each work that was decided on, added when its picture is safely there; whatever
moment the process ends at, the next one goes on from it. `provenance.jsonl` (for programs) and `CREDITS.md`
(for people) are made from it.
"""

import json
import os
import re
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

from kaleidogan.data.collecting.works import Work
from kaleidogan.data.preparing.captions import CREDITS, PROVENANCE

JOURNAL = "journal.jsonl"
PART = ".part"
"""The ending of a picture that is being written."""
ENDINGS = {b"\x89PNG": ".png", b"RIFF": ".webp", b"II*\0": ".tif", b"MM\0*": ".tif"}
"""By a picture's first bytes; what is none of these is a JPEG."""
ARTIST_LETTERS, TITLE_LETTERS, ID_LETTERS = 40, 60, 40
MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|~])")


class Collection:
    """A folder to collect into, opened for going on.

    Attributes:
        kept: what is known of each picture that is there, by the work's id.
        decided: what became of each work, by id: whether it was kept, and if not, why.
        removed: number of pictures that were kept once and have been deleted since.

    Args:
        folder: need not exist.
        choice: what decides which works are taken, in plain values.

    Raises:
        FileExistsError: if the folder holds something else.
        ValueError: if it was collected by another choice, or its journal is damaged.
    """

    def __init__(self, folder: Path, choice: dict[str, Any]) -> None:
        self.folder = folder
        self.kept: dict[str, dict[str, Any]] = {}
        self.decided: dict[str, str | None] = {}
        self.removed = 0
        self.journal = folder / JOURNAL
        # As JSON gives it back: a tuple is a list there.
        choice = json.loads(json.dumps(choice))
        before, lines = self._read_journal()
        if before != choice and any("kept" in line for line in lines):
            raise ValueError(self._describe_change(before, choice))
        if before != choice:
            # No picture hangs on what was tried before.
            lines = []
            self._begin(choice)
        for line in lines:
            self.decided[line["id"]] = line.get("left_out")
            if "kept" in line:
                self._recall(line["id"], line["kept"])
        for part in folder.glob(f".*{PART}"):
            part.unlink()

    def add(self, work: Work, data: bytes) -> None:
        """Store a picture's bytes as they came, and note it."""
        entry = {
            "file": file_name(work, data),
            "title": work.title,
            "artist": work.artist,
            "born": work.born,
            "died": work.died,
            "date": work.date,
            "genre": ", ".join(term for term in work.genre if term),
            "licence": work.licence,
            "address": work.address,
            "page": work.page,
            "museum": work.museum,
        }
        write_whole(self.folder / str(entry["file"]), data)
        self._note({"id": work.id, "kept": entry}, durable=True)
        self.decided[work.id] = None
        self.kept[work.id] = entry

    def leave_out(self, id_: str, reason: str) -> None:
        """Note that a work is not wanted, and why; it will not be asked for again."""
        self._note({"id": id_, "left_out": reason})
        self.decided[id_] = reason

    def left_out(self) -> dict[str, int]:
        """Count the works that are not wanted by reason, the most frequent first."""
        counts = Counter(reason for reason in self.decided.values() if reason is not None)
        return dict(sorted(counts.items(), key=lambda entry: (-entry[1], entry[0])))

    def write_credits(self) -> None:
        """Write where each picture comes from, sorted by file."""
        entries = sorted(self.kept.values(), key=lambda entry: entry["file"])
        lines = [json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries]
        write_whole(self.folder / PROVENANCE, "".join(lines).encode())
        text = ["# Credits", "", "Where the pictures in this folder come from.", "", *map(_credit, entries)]
        write_whole(self.folder / CREDITS, ("\n".join(text) + "\n").encode())

    def _read_journal(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Read the choice and the works' lines; cut off one that was being written when the process died."""
        if not self.journal.exists():
            return {}, []
        data = self.journal.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):
            os.truncate(self.journal, len(whole))
        try:
            lines = [json.loads(line) for line in whole.splitlines()]
            if not all(isinstance(line["id"], str) for line in lines[1:]):
                raise ValueError("a line without an id")
            return (lines[0]["choice"] if lines else {}), lines[1:]
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"'{self.journal}' is damaged ({error}); choose another folder") from error

    def _begin(self, choice: dict[str, Any]) -> None:
        others = [path.name for path in self.folder.iterdir()] if self.folder.is_dir() else []
        if others and JOURNAL not in others:
            raise FileExistsError(
                f"out '{self.folder}' holds other things than a collection; choose another folder"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        self.journal.write_bytes(b"")
        self._note({"choice": choice}, durable=True)

    def _describe_change(self, before: dict[str, Any], choice: dict[str, Any]) -> str:
        changes = [
            f"  {key}: {json.dumps(before.get(key))} -> {json.dumps(choice.get(key))}"
            for key in sorted({*before, *choice})
            if before.get(key) != choice.get(key)
        ]
        return (
            f"out '{self.folder}' was collected by another choice; take the same one, or a folder beside it "
            "(`kaleidogan prepare` reads the folder above both):\n" + "\n".join(changes)
        )

    def _recall(self, id_: str, entry: dict[str, Any]) -> None:
        # One that the user has deleted was looked at and found wanting.
        if (self.folder / entry["file"]).exists():
            self.kept[id_] = entry
        else:
            self.removed += 1

    def _note(self, line: dict[str, Any], durable: bool = False) -> None:
        with self.journal.open("ab") as stream:
            stream.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
            if durable:
                stream.flush()
                os.fsync(stream.fileno())


def write_whole(path: Path, data: bytes) -> None:
    """Write a file aside and rename it, so that it is never seen in part."""
    part = path.with_name(f".{path.name}{PART}")
    with part.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(path)


def file_name(work: Work, data: bytes) -> str:
    """Make `artist_title_id.jpg` of a work, in letters that every system and shell takes."""
    artist = slug(work.artist, ARTIST_LETTERS) or "unknown"
    title = slug(work.title, TITLE_LETTERS) or "untitled"
    ending = next((e for start, e in ENDINGS.items() if data.startswith(start)), ".jpg")
    return f"{artist}_{title}_{slug(work.id, ID_LETTERS)}{ending}"


def slug(text: str, letters: int) -> str:
    """Reduce a text to small ASCII letters, digits and hyphens, of a length at most."""
    plain = unicodedata.normalize("NFKD", text.casefold()).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:letters].strip("-")


def _credit(entry: dict[str, Any]) -> str:
    """A line for people: artist - title, date, licence, page."""
    artist, title, date, licence, museum, page = (
        MARKDOWN.sub(r"\\\1", str(entry[key])) if key != "page" else str(entry[key])
        for key in ("artist", "title", "date", "licence", "museum", "page")
    )
    told = [
        part for part in (f"*{title or 'untitled'}*", date, licence or "licence not stated", museum) if part
    ]
    page = page if page.startswith(("http://", "https://")) and not re.search(r"[\s<>]", page) else ""
    return f"- {artist or 'artist not known'} - {', '.join(told)}" + (f", <{page}>" if page else "")
