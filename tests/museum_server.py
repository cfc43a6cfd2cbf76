"""A local server that speaks the museums' documented interfaces, and misbehaves on request.

`python tests/museum_server.py` serves it by hand, with the addresses to try.
"""

import io
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from PIL import Image, ImageDraw

LIVES = {
    "Claude Monet": (1840, 1926),
    "Paul Klee": (1879, 1940),
    "Jean Arp": (1886, 1966),
    "William Turner": (1775, 1851),
    "Paul C\u00e9zanne": (1839, 1906),
    "Anonymous": (None, None),
}
KINDS = {
    "Claude Monet": ("Landscapes", "Impressionism"),
    "Paul Klee": ("Abstraction", "Modern Art"),
    "Jean Arp": ("Abstraction", "Modern Art"),
    "William Turner": ("Landscapes", "Romanticism"),
    "Paul C\u00e9zanne": ("Still life", "Post-Impressionism"),
    "Anonymous": ("Portraits", ""),
}
AIC_WINDOW, MET_WINDOW = 1000, 10_000


def picture(number: int, kind: str = "JPEG", size: tuple[int, int] = (48, 40)) -> bytes:
    """A picture that belongs to a number."""
    image = Image.new("RGB", size, ((37 * number) % 256, (91 * number) % 256, 120))
    ImageDraw.Draw(image).text((2, 2), str(number), fill="white")
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def works(count: int) -> list[dict]:
    """What both museums own; every fifth is under copyright, every seventh has no picture."""
    artists = list(LIVES)
    return [
        {
            "number": number,
            "artist": artists[number % len(artists)],
            "title": f"Study no. {number}",
            "year": 1860 + number % 60,
            "free": number % 5 != 0,
            "pictured": number % 7 != 0,
        }
        for number in range(1, count + 1)
    ]


class Museums(ThreadingHTTPServer):
    """Both museums, and `/files/NAME` that answers as NAME says.

    Attributes:
        asked: how often each path was asked for, without the query.
        times: when each request came.
        seen: the headers and paths of all requests.
        faults: by path, what is wrong with it: a name of `Handler.do_fault_NAME`.
        answers: by path, the JSON that is answered whatever is asked.
        delay: before each answer, in seconds.
    """

    daemon_threads = True

    def __init__(self, count: int = 30) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.owned = {work["number"]: work for work in works(count)}
        self.asked: Counter[str] = Counter()
        self.times: list[float] = []
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.faults: dict[str, str] = {}
        self.answers: dict[str, object] = {}
        self.delay = 0.0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def met(self) -> str:
        return f"{self.url}/public/collection"

    @property
    def artic(self) -> str:
        return f"{self.url}/api/v1"

    def handle_error(self, request, client_address) -> None:
        """A client that goes away in the middle is part of the tests."""


class Handler(BaseHTTPRequestHandler):
    """Answers one request as the museums' documentation says, or wrongly if it is told to."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Museums

    def log_message(self, format, *args) -> None:
        pass

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
        self.server.asked[parts.path] += 1
        self.server.times.append(time.monotonic())
        self.server.seen.append((self.path, dict(self.headers)))
        time.sleep(self.server.delay)
        if fault := self.server.faults.get(parts.path):
            getattr(self, f"do_fault_{fault}")(self.server.asked[parts.path])
            return
        if parts.path in self.server.answers:
            self.send(200, self.server.answers[parts.path])
            return
        path = parts.path.strip("/").split("/")
        match path:
            case ["public", "collection", "v1.1", "search"]:
                self.met_search(query)
            case ["public", "collection", "v1", "search"]:
                self.send(410, {"message": "retired on 2026-10-01", "replacement": "/v1.1/search"})
            case ["public", "collection", "v1", "objects", number]:
                self.met_object(number)
            case ["CRDImages", name]:
                self.send(200, picture(int(name.split(".")[0])), "image/jpeg")
            case ["api", "v1", "artworks", "search"]:
                self.aic_search(query)
            case ["api", "v1", "agents"]:
                self.aic_agents(query)
            case ["iiif", "2", number, "full", size, "0", "default.jpg"]:
                self.send(200, picture(int(number.split("-")[1]), size=(int(size[:-1]), 600)), "image/jpeg")
            case ["files", name]:
                number, _, ending = name.partition(".")
                self.send(200, picture(int(number), {"jpg": "JPEG"}.get(ending, ending.upper())))
            case _:
                self.send(404, b"<html>not found</html>", "text/html")

    def send(self, status: int, body, kind: str = "application/json", **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def met_search(self, query: dict[str, str]) -> None:
        """Filters, `offset` and `limit` (at most 500); `objectIDs` is null past the last match."""
        found = [
            work["number"]
            for work in self.server.owned.values()
            if query.get("q", "").lower() in f"{work['artist']} {work['title']}".lower()
        ]
        if "dateBegin" in query and "dateEnd" in query:
            begin, end = int(query["dateBegin"]), int(query["dateEnd"])
            found = [n for n in found if begin <= self.server.owned[n]["year"] <= end]
        offset, limit = int(query.get("offset", 0)), min(500, int(query.get("limit", 100)))
        page = found[offset : min(offset + limit, MET_WINDOW)]
        self.send(200, {"total": len(found), "objectIDs": page or None})

    def met_object(self, number: str) -> None:
        work = self.server.owned.get(int(number))
        if work is None:
            self.send(404, {"message": "ObjectID not found"})
            return
        born, died = LIVES[work["artist"]]
        shown = work["free"] and work["pictured"]
        genre, style = KINDS[work["artist"]]
        self.send(
            200,
            {
                "objectID": work["number"],
                "isPublicDomain": work["free"],
                "primaryImage": f"{self.server.url}/CRDImages/{number}.jpg" if shown else "",
                "title": work["title"],
                "artistDisplayName": work["artist"],
                "artistBeginDate": str(born or ""),
                "artistEndDate": f"{died or ''} ",
                "objectDate": f"ca. {work['year']}",
                "objectBeginDate": work["year"] - 1,
                "objectEndDate": work["year"] + 1,
                "classification": "Paintings",
                "objectName": "Painting",
                "medium": "Oil on canvas",
                "department": "Modern and Contemporary Art" if "Modern" in style else "European Paintings",
                "tags": [{"term": genre}] if genre else None,
                "objectURL": f"{self.server.url}/art/collection/search/{number}",
                "creditLine": "Gift of a friend",
                "rightsAndReproduction": "" if work["free"] else "\u00a9 the estate",
            },
        )

    def aic_search(self, query: dict[str, str]) -> None:
        """GET with `params`, the query in JSON; `page` and `limit` reach the first thousand results."""
        asked = json.loads(query["params"])
        limit, page = asked.get("limit", 12), asked.get("page", 1)
        if limit > 100 or limit * page > AIC_WINDOW:
            error = "You have requested too many results. Please refine your parameters."
            self.send(403, {"status": 403, "error": "Invalid number of results", "detail": error})
            return
        records = [self.aic_record(work) for work in self.server.owned.values()]
        found = [r for r in records if all(matches(r, clause) for clause in asked["query"]["bool"]["must"])]
        words = asked.get("q", "").lower()
        found = [r for r in found if words in f"{r['artist_title']} {r['title']}".lower()]
        assert asked["sort"] == [{"id": "asc"}]
        data = found[limit * (page - 1) : limit * page]
        self.send(
            200,
            {
                "pagination": {"total": len(found), "limit": limit, "current_page": page},
                "data": [{key: r.get(key) for key in asked["fields"]} for r in data],
                "config": {"iiif_url": f"{self.server.url}/iiif/2", "website_url": self.server.url},
            },
        )

    def aic_record(self, work: dict) -> dict:
        genre, style = KINDS[work["artist"]]
        return {
            "id": work["number"],
            "title": work["title"],
            "artist_id": 100 + list(LIVES).index(work["artist"]),
            "artist_title": work["artist"],
            "date_start": work["year"],
            "date_end": work["year"],
            "date_display": str(work["year"]),
            "artwork_type_title": "Painting",
            "classification_titles": ["painting", "oil on canvas"],
            "subject_titles": [genre.lower()] if genre else [],
            "style_titles": [style] if style else [],
            "department_title": "Painting and Sculpture of Europe",
            "is_public_domain": work["free"],
            "image_id": f"aic-{work['number']}" if work["pictured"] else None,
            "thumbnail": {"width": 5000 if work["number"] % 4 else 600, "height": 4000},
            "copyright_notice": None if work["free"] else "\u00a9 the estate",
        }

    def aic_agents(self, query: dict[str, str]) -> None:
        wanted = [int(number) for number in query["ids"].split(",")]
        assert len(wanted) <= int(query["limit"]) <= 100
        lives = list(LIVES.values())
        data = [{"id": n, "birth_date": lives[n - 100][0], "death_date": lives[n - 100][1]} for n in wanted]
        self.send(200, {"data": data})

    def do_fault_fails_twice(self, time_: int) -> None:
        if time_ <= 2:
            self.send(500, b"oops", "text/html")
        else:
            self.send(200, picture(1))

    def do_fault_always_500(self, time_: int) -> None:
        self.send(503, b"down", "text/html")

    def do_fault_busy(self, time_: int) -> None:
        if time_ == 1:
            self.send(429, b"slow down", "text/html", Retry_After="1")
        else:
            self.send(200, picture(2))

    def do_fault_busy_for_long(self, time_: int) -> None:
        self.send(429, b"slow down", "text/html", Retry_After="4000")

    def do_fault_forbidden_once(self, time_: int) -> None:
        if time_ == 1:
            self.send(403, b"<html>Incapsula incident ID</html>", "text/html")
        else:
            self.send(200, picture(2))

    def do_fault_forbidden(self, time_: int) -> None:
        self.send(403, b"<html>Incapsula incident ID</html>", "text/html")

    def do_fault_challenge(self, time_: int) -> None:
        self.send(403, b"Just a moment...", "text/html", cf_mitigated="challenge")

    def do_fault_cut_once(self, time_: int) -> None:
        if time_ > 1:
            self.send(200, picture(3))
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(picture(3))))
        self.end_headers()
        self.wfile.write(picture(3)[:100])
        self.close_connection = True

    def do_fault_cut(self, time_: int) -> None:
        self.do_fault_cut_once(1)

    def do_fault_cut_and_unsaid(self, time_: int) -> None:
        self.send(200, picture(3)[:-200])

    def do_fault_no_picture(self, time_: int) -> None:
        self.send(200, b"<html>a page</html>", "text/html")

    def do_fault_no_json(self, time_: int) -> None:
        self.send(200, b"<html>a page</html>", "text/html")

    def do_fault_missing(self, time_: int) -> None:
        self.send(404, b"", "text/html")

    def do_fault_moved(self, time_: int) -> None:
        self.send(302, b"", "text/html", Location="/files/9.png")

    def do_fault_loop(self, time_: int) -> None:
        self.send(302, b"", "text/html", Location=self.path)

    def do_fault_to_file(self, time_: int) -> None:
        self.send(302, b"", "text/html", Location="file:///etc/hostname")

    def do_fault_announced_large(self, time_: int) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(2**40))
        self.end_headers()

    def do_fault_endless(self, time_: int) -> None:
        self.send_response(200)
        self.end_headers()
        self.close_connection = True
        while True:
            self.wfile.write(bytes(2**20))

    def do_fault_stall(self, time_: int) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "5000")
        self.end_headers()
        self.wfile.write(b"\xff\xd8")
        time.sleep(3)

    def do_fault_drip(self, time_: int) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "5000")
        self.end_headers()
        for _ in range(5000):
            self.wfile.write(b"\xff")
            time.sleep(0.01)


def matches(record: dict, clause: dict) -> bool:
    """The part of Elasticsearch's query language that is asked in."""
    ((kind, body),) = clause.items()
    if kind == "exists":
        return record.get(body["field"]) is not None
    ((field, bound),) = body.items()
    if kind == "term":
        return record[field] == bound
    assert kind == "range"
    return record[field] > bound.get("gt", -(10**9)) and record[field] < bound.get("lt", 10**9)


@contextmanager
def serve(count: int = 30) -> Iterator[Museums]:
    server = Museums(count)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


if __name__ == "__main__":
    with serve(count=60) as museums:
        print(f"kaleidogan collect museum=met base_url={museums.met} out=met", flush=True)
        print(f"kaleidogan collect museum=artic base_url={museums.artic} out=artic", flush=True)
        threading.Event().wait()
