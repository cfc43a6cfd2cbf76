"""A list of pictures' addresses, a CSV or a Parquet file, in the words of `works.py`."""

import csv
import hashlib
import re
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import Any

from kaleidogan.data.collecting.web import Client
from kaleidogan.data.collecting.works import Missing, Rules, Work, year_of, years_in

ADDRESS = ("address", "url")
LICENCE = ("licence", "license")
KNOWN = (*ADDRESS, "title", "artist", "date", "born", "died", "genre", "style", *LICENCE, "page", "museum")
FREE = re.compile(
    r"(pd|pdm|cc-?0|(in the )?public domain( mark| dedication)?)( ?\(?(cc0 )?[0-9.]*\)?)?"
    r"|https?://creativecommons\.org/publicdomain/\S*",
    re.IGNORECASE,
)
"""The licences that say public domain; matched whole, as "not public domain" holds the words too."""


class Listing:
    """Works by their pictures' addresses.

    Args:
        path: a .csv with a header, in UTF-8, or a .parquet file. It has a column `address` (or `url`) and may
            have title, artist, date, born, died, genre, style, licence, page and museum; others are ignored.
        public_domain: whether the licences have to be known.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be read, lacks a column, or is a Parquet file and there is no pyarrow.
    """

    rate = 1.0
    cooldowns: Mapping[int, float] = {}
    note = ""

    def __init__(self, path: Path, public_domain: bool) -> None:
        if not path.is_file():
            raise FileNotFoundError(f"list '{path}' does not exist; give a .csv or .parquet file")
        self.path = path
        self.rows = _read_rows(path)
        columns = next(self.rows)
        names = {column.strip().lower(): column for column in columns}
        self.columns = {name: names[name] for name in KNOWN if name in names}
        shown = ", ".join(map(str, columns))
        if not any(name in self.columns for name in ADDRESS):
            raise ValueError(f"list '{path}' has no column address (or url); its columns are: {shown}")
        if public_domain and not any(name in self.columns for name in LICENCE):
            raise ValueError(
                f"list '{path}' has no column licence, so no picture is known to be in the public domain; "
                f"add one, or set public_domain=false if you may use them; its columns are: {shown}"
            )

    def headers(self, user_agent: str) -> dict[str, str]:
        """No server wishes for any."""
        return {}

    def works(
        self, client: Client, query: str, rules: Rules, known: Container[str]
    ) -> Iterator[Work | Missing]:
        """Give the works in the list's order, but for those whose ids are known.

        Raises:
            ValueError: if the file cannot be read on.
        """
        seen: set[str] = set()
        for number, row in enumerate(self.rows, start=1):
            cells = {name: _text(row.get(column)) for name, column in self.columns.items()}
            address = cells.get("address") or cells.get("url") or ""
            # A row may move when the list grows, an address stays.
            id_ = hashlib.sha256(address.encode("utf-8", "replace")).hexdigest()[:12]
            if (reason := _against(address, id_ in seen)) is not None:
                if f"row {number}" not in known:
                    yield Missing(f"row {number}", reason)
            elif id_ not in known:
                yield _work(id_, address, cells)
            seen.add(id_)


def _against(address: str, again: bool) -> str | None:
    if not address:
        return "no address"
    return "the address of an earlier row" if again else None


def _work(id_: str, address: str, cells: dict[str, str]) -> Work:
    licence = cells.get("licence") or cells.get("license") or ""
    date = cells.get("date", "")
    return Work(
        id=id_,
        address=address,
        title=cells.get("title", ""),
        artist=cells.get("artist", ""),
        born=year_of(cells.get("born")),
        died=year_of(cells.get("died")),
        date=date,
        made=years_in(date),
        genre=(cells.get("genre", ""),),
        style=(cells.get("style", ""),),
        public_domain=FREE.fullmatch(licence) is not None,
        licence=licence,
        page=cells.get("page", ""),
        museum=cells.get("museum", ""),
    )


def _text(value: object) -> str:
    return "" if value is None else " ".join(str(value).split())


def _read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Give the header first, as a row of nothing, then the rows."""
    kind = path.suffix.lower()
    if kind == ".csv":
        return _read_csv(path)
    if kind in (".parquet", ".pq"):
        return _read_parquet(path)
    raise ValueError(f"list '{path}' ends in neither .csv nor .parquet")


def _read_csv(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = csv.DictReader(stream)
            yield dict.fromkeys(rows.fieldnames or ())
            yield from rows
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"list '{path}' cannot be read as a CSV in UTF-8: {error}") from error


def _read_parquet(path: Path) -> Iterator[dict[str, Any]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise ValueError(
            f"list '{path}' is a Parquet file, and pyarrow is not there to read it; "
            "pip install 'kaleidogan[parquet]', or save the list as a .csv"
        ) from error
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            yield dict.fromkeys(names)
            wanted = [name for name in names if name.strip().lower() in KNOWN]
            for batch in file.iter_batches(batch_size=1024, columns=wanted):
                yield from batch.to_pylist()
    except pyarrow.ArrowException as error:
        raise ValueError(f"list '{path}' cannot be read as Parquet: {error}") from error
