"""Museums with an open interface: what they have, in the words of `works.py`.

Both are written from the museums' public documentation and from what others report of their servers;
`docs/collect.md` says which, and what could not be tried. A further museum is a class like these.
"""

import json
from collections.abc import Container, Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

from kaleidogan.data.collecting.web import Client, FetchError, RefusedError
from kaleidogan.data.collecting.works import Missing, Rules, Work, year_of

CC0 = "public domain (CC0 1.0)"


@runtime_checkable
class Museum(Protocol):
    """A collection that can be searched.

    Attributes:
        rate: requests a second to each of its servers that it bears.
        cooldowns: by status, the seconds to wait after it, as `Client` takes them.
        headers: further headers of each request, given who asks.
        note: what the search could not show; empty if it showed all.
    """

    rate: float
    cooldowns: Mapping[int, float]
    note: str

    def headers(self, user_agent: str) -> dict[str, str]:
        """Give the headers that this museum wishes for."""
        ...

    def works(
        self, client: Client, query: str, rules: Rules, known: Container[str]
    ) -> Iterator[Work | Missing]:
        """Give the works that a search finds, always in the same order.

        Args:
            client: reads the addresses.
            query: words to search for; may be empty.
            rules: what the museum may narrow its search by; the works need not meet them.
            known: ids that are not wanted.

        Raises:
            FetchError: if the search itself cannot be read.
        """
        ...


class Met:
    """The Metropolitan Museum of Art, New York: its Collection API, as metmuseum.github.io describes it.

    A search gives numbers, and each work's record is a request of its own. The documentation allows 80
    requests a second; the servers are reported to answer 403 to more than about 80 a minute.
    """

    name = "The Metropolitan Museum of Art"
    rate = 1.0
    cooldowns: Mapping[int, float] = {403: 60.0}
    page = 500
    """Numbers that one answer holds, at most."""
    window = 10_000
    """How far into its results a search can be paged."""

    def __init__(self, base_url: str | None = None) -> None:
        self.base_url = (base_url or "https://collectionapi.metmuseum.org/public/collection").rstrip("/")
        self.note = ""

    def headers(self, user_agent: str) -> dict[str, str]:
        """It wishes for none."""
        return {}

    def works(
        self, client: Client, query: str, rules: Rules, known: Container[str]
    ) -> Iterator[Work | Missing]:
        """See `Museum`."""
        asked = {"hasImages": "true"} | ({"q": query} if query else {})
        if rules.made_after is not None and rules.made_before is not None:
            # The museum heeds them as a pair only.
            asked |= {"dateBegin": str(rules.made_after + 1), "dateEnd": str(rules.made_before - 1)}
        for offset in range(0, self.window, self.page):
            place = {"offset": str(offset), "limit": str(self.page)}
            answer = client.read_json(f"{self.base_url}/v1.1/search", asked | place)
            numbers = [number for number in _list(answer.get("objectIDs")) if isinstance(number, int)]
            for number in numbers:
                if str(number) not in known:
                    yield self._work(client, str(number))
            total = answer.get("total")
            if not numbers or not isinstance(total, int) or offset + self.page >= total:
                return
        self.note = f"the search finds {total} works and shows {self.window}: narrow it with query"

    def _work(self, client: Client, number: str) -> Work | Missing:
        address = f"{self.base_url}/v1/objects/{number}"
        try:
            record = client.read_json(address)
        except RefusedError:
            raise
        except FetchError as error:
            reason = error.reason if error.passing else f"no record: {error.reason}"
            return Missing(number, reason, address, error.detail, error.passing)
        free = record.get("isPublicDomain") is True
        return Work(
            id=number,
            address=_text(record.get("primaryImage")),
            title=_text(record.get("title")),
            artist=_text(record.get("artistDisplayName")),
            born=year_of(record.get("artistBeginDate")),
            died=year_of(record.get("artistEndDate")),
            date=_text(record.get("objectDate")),
            made=_years(record.get("objectBeginDate"), record.get("objectEndDate")),
            genre=_terms(
                record.get("classification"),
                record.get("objectName"),
                [tag.get("term") for tag in _records(record.get("tags"))],
            ),
            style=_terms(record.get("department"), record.get("period"), record.get("culture")),
            public_domain=free,
            licence=CC0 if free else _text(record.get("rightsAndReproduction")),
            page=_text(record.get("objectURL")),
            museum=self.name,
        )


class Artic:
    """The Art Institute of Chicago: its API, as api.artic.edu/docs describes it.

    A search gives records, a hundred an answer; artists' years are records of their own. Since no search can
    be paged beyond its first thousand works, each page asks for those that follow the last one's number. The
    documentation wishes for one request a second.

    Args:
        base_url: another server that speaks the same.
        width: of the pictures, in pixels; a smaller one comes as it is.
    """

    name = "The Art Institute of Chicago"
    rate = 1.0
    cooldowns: Mapping[int, float] = {}
    page = 100
    fields = (
        "id,title,artist_id,artist_title,date_start,date_end,date_display,artwork_type_title,"
        "classification_titles,subject_titles,style_titles,department_title,is_public_domain,image_id,"
        "thumbnail,copyright_notice"
    )

    def __init__(self, base_url: str | None = None, width: int = 843) -> None:
        self.base_url = (base_url or "https://api.artic.edu/api/v1").rstrip("/")
        self.width = width
        self.note = ""
        self.lives: dict[int, tuple[int | None, int | None]] = {}
        """Years of birth and death by the artist's number."""

    def headers(self, user_agent: str) -> dict[str, str]:
        """Name the program to the museum's own servers too."""
        return {"AIC-User-Agent": user_agent}

    def works(
        self, client: Client, query: str, rules: Rules, known: Container[str]
    ) -> Iterator[Work | Missing]:
        """See `Museum`."""
        last = 0
        while True:
            search = {
                "query": {"bool": {"must": self._wanted(rules, last)}},
                "sort": [{"id": "asc"}],
                "fields": self.fields.split(","),
                "limit": self.page,
                "page": 1,
            } | ({"q": query} if query else {})
            given = {"params": json.dumps(search, separators=(",", ":"))}
            answer = client.read_json(f"{self.base_url}/artworks/search", given)
            records = [r for r in _records(answer.get("data")) if isinstance(r.get("id"), int)]
            new = [record for record in records if str(record["id"]) not in known]
            self._look_up_lives(client, new)
            servers = _record(answer.get("config"))
            for record in new:
                yield self._work(record, servers)
            if len(records) < self.page:
                return
            if records[-1]["id"] <= last:
                raise FetchError("the search does not go on after a work's number", self.base_url)
            last = records[-1]["id"]

    def _wanted(self, rules: Rules, last: int) -> list[dict[str, Any]]:
        wanted: list[dict[str, Any]] = [{"range": {"id": {"gt": last}}}, {"exists": {"field": "image_id"}}]
        if rules.public_domain:
            wanted.append({"term": {"is_public_domain": True}})
        if rules.made_after is not None:
            wanted.append({"range": {"date_start": {"gt": rules.made_after}}})
        if rules.made_before is not None:
            wanted.append({"range": {"date_end": {"lt": rules.made_before}}})
        return wanted

    def _look_up_lives(self, client: Client, records: list[dict[str, Any]]) -> None:
        artists = {r["artist_id"] for r in records if isinstance(r.get("artist_id"), int)} - set(self.lives)
        if not artists:
            return
        ids = ",".join(str(artist) for artist in sorted(artists))
        asked = {"ids": ids, "fields": "id,birth_date,death_date", "limit": str(self.page)}
        for agent in _records(client.read_json(f"{self.base_url}/agents", asked).get("data")):
            if isinstance(agent.get("id"), int):
                self.lives[agent["id"]] = year_of(agent.get("birth_date")), year_of(agent.get("death_date"))
        for artist in artists:
            self.lives.setdefault(artist, (None, None))

    def _work(self, record: dict[str, Any], servers: dict[str, Any]) -> Work:
        artist = record.get("artist_id")
        born, died = self.lives.get(artist, (None, None)) if isinstance(artist, int) else (None, None)
        free = record.get("is_public_domain") is True
        return Work(
            id=str(record["id"]),
            address=self._picture(record, _text(servers.get("iiif_url"))),
            title=_text(record.get("title")),
            artist=_text(record.get("artist_title")),
            born=born,
            died=died,
            date=_text(record.get("date_display")),
            made=_years(record.get("date_start"), record.get("date_end")),
            genre=_terms(
                record.get("artwork_type_title"),
                record.get("classification_titles"),
                record.get("subject_titles"),
            ),
            style=_terms(record.get("style_titles"), record.get("department_title")),
            public_domain=free,
            licence=CC0 if free else _text(record.get("copyright_notice")),
            page=f"{_text(servers.get('website_url')) or 'https://www.artic.edu'}/artworks/{record['id']}",
            museum=self.name,
        )

    def _picture(self, record: dict[str, Any], server: str) -> str:
        image = _text(record.get("image_id"))
        if not image:
            return ""
        # A IIIF server need not enlarge, and some answer with an error.
        whole = _record(record.get("thumbnail")).get("width")
        width = min(self.width, whole) if isinstance(whole, int) and whole > 0 else self.width
        server = server or "https://www.artic.edu/iiif/2"
        return f"{server}/{image}/full/{width},/0/default.jpg"


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _record(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _records(value: object) -> list[dict[str, Any]]:
    return [entry for entry in _list(value) if isinstance(entry, dict)]


def _text(value: object) -> str:
    return " ".join(value.split()) if isinstance(value, str) else ""


def _years(begin: object, end: object) -> tuple[int, int] | None:
    """Two zeros are the Met's mark of a date that is not known."""
    if isinstance(begin, int) and isinstance(end, int) and (begin, end) != (0, 0):
        return begin, end
    return None


def _terms(*values: object) -> tuple[str, ...]:
    """Gather the words of fields that hold one, several or none."""
    entries = [entry for value in values for entry in (value if isinstance(value, list) else [value])]
    return tuple(text for text in map(_text, entries) if text)
