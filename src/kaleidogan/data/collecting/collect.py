"""`kaleidogan collect`: public-domain pictures from museums, or from a list of addresses, into a folder.

Nothing is left out in silence: what is kept, left out and failed is counted, shown at the end and listed in
the folder's `report.json`. A run that was stopped goes on where it was.
"""

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from kaleidogan.data.collecting.collection import Collection, write_whole
from kaleidogan.data.collecting.listing import Listing
from kaleidogan.data.collecting.museums import Artic, Met, Museum
from kaleidogan.data.collecting.web import Client, FetchError, RefusedError, user_agent
from kaleidogan.data.collecting.works import Missing, Rules, Work
from kaleidogan.data.preparing.pictures import PictureError, upright
from kaleidogan.settings import Count, CountOrZero, Positive

GIVE_UP = 10
"""So many addresses in a row without an answer mean that something else is wrong."""
NUM_EXAMPLES = 3
"""How many addresses the report names for each reason; all of them are in `report.json`."""
GO_ON = "what was loaded is safe, and the same command goes on"


@dataclass(frozen=True)
class Report:
    """What became of the works that were found.

    Attributes:
        folder: where the pictures are.
        kept: number of pictures there.
        size: of them all, in bytes.
        removed: how many were kept once and have been deleted since.
        left_out: how many works were not wanted, by reason.
        failures: the works that could not be had this time.
        note: what the search could not show; empty if it showed all.
        stopped: why the run ended early; empty if it did not.
        settings: what `collect` was called with.
    """

    folder: Path
    kept: int
    size: int
    removed: int
    left_out: dict[str, int]
    failures: tuple[Missing, ...]
    note: str
    stopped: str
    settings: dict[str, Any]

    def failed(self) -> dict[str, int]:
        """Count the failures by reason, the most frequent first."""
        counts = Counter(one.reason for one in self.failures)
        return dict(sorted(counts.items(), key=lambda entry: (-entry[1], entry[0])))

    def as_dict(self) -> dict[str, Any]:
        """Give the whole report in plain values, as `report.json` has it."""
        return {
            "kept": self.kept,
            "deleted_since": self.removed,
            "left_out": sum(self.left_out.values()),
            "left_out_by_reason": self.left_out,
            "failed": len(self.failures),
            "failed_by_reason": self.failed(),
            "failures": [
                {"id": one.id, "address": one.address, "reason": one.reason}
                | ({"detail": one.detail} if one.detail else {})
                for one in self.failures
            ],
            "note": self.note,
            "stopped": self.stopped,
            "settings": self.settings,
        }

    def __str__(self) -> str:
        """Say it on one screen."""
        lines = [f"{self.folder}: {self.kept} picture{'s' * (self.kept != 1)}, {self.size / 1e6:.1f} MB"]
        if self.removed:
            lines.append(_line(self.removed, "deleted since they were loaded; they are not loaded again"))
        lines.append(_line(sum(self.left_out.values()), "left out"))
        lines += [_line(count, reason, 12) for reason, count in self.left_out.items()]
        lines.append(
            _line(len(self.failures), "failed" + "; the same command tries them again" * bool(self.failures))
        )
        for reason, count in self.failed().items():
            names = [_shown(one.address or one.id) for one in self.failures if one.reason == reason]
            more = ", ..." if count > NUM_EXAMPLES else ""
            lines.append(_line(count, f"{reason}: {', '.join(names[:NUM_EXAMPLES])}{more}", 12))
        if not (self.kept or self.left_out or self.failures or self.stopped):
            lines.append("nothing was found: try other words as query, or none")
        lines += [self.note] if self.note else []
        return "\n".join([*lines, f"the whole list: {self.folder / 'report.json'}"])


def _line(count: int, text: str, width: int = 8) -> str:
    return f"{count:{width}} {text}"


def _shown(text: str) -> str:
    """Make a stranger's text safe to print."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def collect(
    *,
    out: str,
    museum: Literal["met", "artic"] | None = None,
    list: str | None = None,
    query: str | None = None,
    genre: tuple[str, ...] = (),
    style: tuple[str, ...] = (),
    made_after: int | None = None,
    made_before: int | None = None,
    born_after: int | None = None,
    born_before: int | None = None,
    died_before: int | None = None,
    public_domain: bool = True,
    limit: Count | None = None,
    width: Literal[843, 1686] = 843,
    rate: Positive | None = None,
    timeout: Positive = 30.0,
    retries: CountOrZero = 5,
    contact: str | None = None,
    base_url: str | None = None,
) -> Report:
    """Gather public-domain pictures from a museum or a list of addresses into a folder, with their origins.

    Args:
        out: the folder to write; one that was begun by the same choice is gone on with.
        museum: met (Metropolitan Museum of Art) or artic (Art Institute of Chicago); or give a list.
        list: a .csv or .parquet file with a column address, and title, artist, date, born, died, genre,
            style, licence as far as known.
        query: words for the museum's search.
        genre: words such as landscape or [landscape,seascape]: one has to begin a word of the work's kind or
            subjects.
        style: likewise of its movement, period or department, such as impressionism.
        made_after: made later than this year.
        made_before: made earlier than this year.
        born_after: the artist was born later than this year.
        born_before: the artist was born earlier than this year.
        died_before: the artist died earlier than this year; with born_before too, one of both is enough.
        public_domain: only what the museum, or the list's licence, says to be in the public domain.
        limit: how many pictures the folder shall hold; null for all that are found.
        width: of artic's pictures in pixels, 843 or 1686; the Met's come whole, up to about 4000.
        rate: requests a second to each server; null for what the museum bears, 1 for both, and 1 for a list.
        timeout: seconds to wait for a connection, or for more of an answer.
        retries: how often a busy or broken server is asked again.
        contact: an e-mail address, by which a museum may reach you; it is sent with each request.
        base_url: another server that speaks as the museum does.

    Returns:
        What was kept and what was not, and why; it is printed too.

    Raises:
        FileNotFoundError: if the list does not exist.
        FileExistsError: if `out` holds something else.
        OSError: if the search cannot be read, or a server refuses more; what was loaded is kept.
        ValueError: if the settings do not fit, or the list cannot be read.
    """
    settings = dict(locals())
    years = (made_after, made_before, born_after, born_before, died_before)
    rules = Rules(genre, style, *years, public_domain)
    source = _open_source(museum, list, query, base_url, width, public_domain)
    choice = {"source": museum or "list", "query": query, **asdict(rules)}
    choice |= {"width": width} if museum == "artic" else {}
    client = Client(
        rate=rate or source.rate,
        timeout=timeout,
        retries=retries,
        contact=contact or "",
        headers=source.headers(user_agent(contact or "")),
        cooldowns=source.cooldowns,
    )
    run = _Run(source, client, rules, Collection(Path(out).expanduser(), choice), settings)
    return run.play(query or "", limit)


def _open_source(
    museum: str | None, path: str | None, query: str | None, base_url: str | None, width: int, free: bool
) -> Museum:
    if (museum is None) == (path is None):
        raise ValueError("set museum=met or museum=artic, or list=FILE.csv, and not both")
    if path is not None:
        for name, value in (("query", query), ("base_url", base_url)):
            if value is not None:
                raise ValueError(f"{name}={value}: a list has no search; leave {name} out")
        return Listing(Path(path).expanduser(), free)
    return Met(base_url) if museum == "met" else Artic(base_url, width)


@dataclass
class _Run:
    """One start of the command."""

    source: Museum
    client: Client
    rules: Rules
    collection: Collection
    settings: dict[str, Any]
    failures: list[Missing] = field(default_factory=list)
    in_a_row: int = 0

    def play(self, query: str, limit: int | None) -> Report:
        stopped: BaseException | None = None
        try:
            self._gather(query, limit)
        except (OSError, ValueError, KeyboardInterrupt) as error:
            stopped = error
        report = self._report("interrupted" if isinstance(stopped, KeyboardInterrupt) else str(stopped or ""))
        print(report)
        if isinstance(stopped, FetchError):
            place = f"{stopped.address}: " if stopped.address else ""
            raise OSError(f"{place}{stopped}; {GO_ON}") from stopped
        if stopped is not None:
            raise stopped
        return report

    def _gather(self, query: str, limit: int | None) -> None:
        kept = self.collection.kept
        if limit is not None and len(kept) >= limit:
            return
        works = self.source.works(self.client, query, self.rules, self.collection.decided)
        with tqdm(None, "collect", limit, initial=len(kept), unit="picture", disable=None) as bar:
            for found in works:
                self._decide(found)
                bar.update(len(kept) - bar.n)
                bar.set_postfix_str(f"{len(self.collection.decided) - len(kept)} left out")
                if limit is not None and len(kept) >= limit:
                    return

    def _decide(self, found: Work | Missing) -> None:
        if isinstance(found, Missing):
            if found.passing:
                self._fail(found)
            else:
                self.collection.leave_out(found.id, found.reason)
        elif reason := self.rules.against(found):
            self.collection.leave_out(found.id, reason)
        else:
            self._load(found)

    def _load(self, work: Work) -> None:
        try:
            data = self.client.read(work.address)
            upright(data)
        except RefusedError:
            raise
        except (FetchError, PictureError) as error:
            passing = isinstance(error, FetchError) and error.passing
            self._fail(Missing(work.id, error.reason, work.address, error.detail, passing))
            return
        self.in_a_row = 0
        self.collection.add(work, data)

    def _fail(self, missing: Missing) -> None:
        """Note a failure for the report, not for the journal: the next run shall try again."""
        self.failures.append(missing)
        self.in_a_row = self.in_a_row + 1 if missing.passing else 0
        if self.in_a_row == GIVE_UP:
            raise FetchError(f"{GIVE_UP} works in a row could not be had, the last: {missing.reason}")

    def _report(self, stopped: str) -> Report:
        self.collection.write_credits()
        folder = self.collection.folder
        report = Report(
            folder=folder,
            kept=len(self.collection.kept),
            size=sum((folder / entry["file"]).stat().st_size for entry in self.collection.kept.values()),
            removed=self.collection.removed,
            left_out=self.collection.left_out(),
            failures=tuple(self.failures),
            note=self.source.note,
            stopped=stopped,
            settings=self.settings,
        )
        text = json.dumps(report.as_dict(), indent=1, ensure_ascii=False) + "\n"
        write_whole(folder / "report.json", text.encode())
        return report
