"""Reads web addresses politely: paced, patient, bounded, and saying who asks.

A server that is busy or broken is asked again after a while; one that does not want programs is left alone.
"""

import email.utils
import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
import urllib3
from tqdm import tqdm

from kaleidogan import __version__
from kaleidogan.data.preparing.pictures import MAX_BYTES

BACKOFF = 1.0
"""Seconds before the second try; each further one waits twice as long."""
LONGEST_WAIT = 300.0
"""Seconds: a server that asks for more is not waited for."""
TOLD = 5.0
"""Seconds: a longer wait is said, so that it does not look like a hang."""
MAX_REDIRECTS = 5
SLOWEST = 20
"""An answer may take this many timeouts as a whole: a server that drips would hold the run for ever."""
CHUNK = 2**16
BUSY = (429, 500, 502, 503, 504)


class FetchError(OSError):
    """An address cannot be read.

    Attributes:
        reason: the kind of fault, the same text for all addresses that have it.
        detail: what is particular to this one; may be empty.
        passing: whether a later try may go better.
        wait: how long the server asks to be left alone, in seconds.
        address: what was asked for.
    """

    def __init__(self, reason: str, detail: str = "", *, passing: bool = False, wait: float = 0) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail
        self.passing = passing
        self.wait = wait
        self.address = ""

    def __str__(self) -> str:
        return f"{self.reason} ({self.detail})" if self.detail else self.reason


class RefusedError(FetchError):
    """A server does not want to be asked any more, whatever the address; if `passing`, for now."""


class Client:
    """Reads addresses one after the other.

    Args:
        rate: requests a second to each host, at most.
        timeout: seconds to connect, and again for each part of the answer.
        retries: how often an address is asked again.
        contact: how the user may be reached, for the servers' logs; may be empty.
        headers: further headers of every request.
        cooldowns: by status, the seconds to wait after it: how some servers say that it is too much.
    """

    def __init__(
        self,
        *,
        rate: float = 1.0,
        timeout: float = 30.0,
        retries: int = 5,
        contact: str = "",
        headers: Mapping[str, str] | None = None,
        cooldowns: Mapping[int, float] | None = None,
    ) -> None:
        self.interval = 1 / rate
        self.timeout = timeout
        self.retries = retries
        self.cooldowns = dict(cooldowns or {})
        self.next_time: dict[str, float] = {}
        self.session = requests.Session()
        # As sent, an answer's length is what its header says, and nothing swells while it is unpacked.
        self.session.headers.update({"User-Agent": user_agent(contact), "Accept-Encoding": "identity"})
        self.session.headers.update(headers or {})

    def read(self, address: str, params: Mapping[str, str] | None = None) -> bytes:
        """Get what an address holds.

        Raises:
            FetchError: says why not, after all retries.
            RefusedError: if no other address of this server is worth asking for now.
        """
        for attempt in range(self.retries + 1):
            try:
                return self._follow(address, params)
            except FetchError as error:
                error.address = address
                if not error.passing or attempt == self.retries:
                    raise
                wait = max(error.wait, BACKOFF * 2**attempt)
                if wait > LONGEST_WAIT:
                    host = urlsplit(address).netloc
                    raise RefusedError(f"{host} asks to be left alone for {wait:.0f} s") from error
                if wait >= TOLD:
                    host = urlsplit(address).netloc
                    tqdm.write(f"{host}: {error}; asking again in {wait:.0f} s", file=sys.stderr)
                time.sleep(wait)
        raise AssertionError("the last attempt returns or raises")

    def read_json(self, address: str, params: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Get the JSON object that an address answers with.

        Raises:
            FetchError: likewise, or if the answer is something else.
        """
        data = self.read(address, params)
        try:
            answer = json.loads(data)
        except ValueError as error:
            raise FetchError("the answer is no JSON", repr(data[:40]), passing=True) from error
        if not isinstance(answer, dict):
            raise FetchError("the answer is no JSON object", repr(data[:40]))
        return answer

    def _follow(self, address: str, params: Mapping[str, str] | None) -> bytes:
        target = _prepared(address, params)
        for _ in range(MAX_REDIRECTS + 1):
            _check_address(target)
            self._pace(urlsplit(target).netloc)
            with self._answer(target) as response:
                location = self.session.get_redirect_target(response)
                if location is None:
                    self._check_status(response)
                    return self._body(response)
            target = _redirected(target, location)
        raise FetchError(f"redirected more than {MAX_REDIRECTS} times")

    def _pace(self, host: str) -> None:
        time.sleep(max(0.0, self.next_time.get(host, 0.0) - time.monotonic()))
        self.next_time[host] = time.monotonic() + self.interval

    @contextmanager
    def _answer(self, target: str) -> Iterator[requests.Response]:
        try:
            with self.session.get(
                target, stream=True, allow_redirects=False, timeout=(self.timeout, self.timeout)
            ) as response:
                yield response
        except (requests.Timeout, urllib3.exceptions.TimeoutError) as error:
            raise FetchError("timed out", passing=True) from error
        except (requests.exceptions.InvalidURL, UnicodeError) as error:
            raise FetchError("not a web address") from error
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise FetchError("no connection, or one that broke", _cause(error), passing=True) from error

    def _check_status(self, response: requests.Response) -> None:
        status = response.status_code
        if status == 200:
            return
        if response.headers.get("cf-mitigated") == "challenge":
            host = urlsplit(response.url).netloc
            raise RefusedError(f"{host} answers programs with a challenge for browsers, and gives no picture")
        wait = max(self.cooldowns.get(status, 0.0), _seconds(response.headers.get("Retry-After", "")))
        if status in BUSY:
            raise FetchError(f"the server answered {status}", passing=True, wait=wait)
        if status in self.cooldowns:
            reason = f"the server answered {status}, its word for too many requests"
            raise RefusedError(reason, passing=True, wait=wait)
        raise FetchError(f"the server answered {status}")

    def _body(self, response: requests.Response) -> bytes:
        length = response.headers.get("Content-Length", "")
        if length.isdigit() and int(length) > MAX_BYTES:
            raise FetchError("larger than 64 MiB", f"{length} bytes")
        # Where urllib3 has it, what has arrived is handed out at once: a slow drip is seen as one.
        read = getattr(response.raw, "read1", response.raw.read)
        data, end = bytearray(), time.monotonic() + SLOWEST * self.timeout
        while chunk := read(CHUNK):
            data += chunk
            if len(data) > MAX_BYTES:
                raise FetchError("larger than 64 MiB")
            if time.monotonic() > end:
                raise FetchError("timed out", f"after {len(data)} bytes", passing=True)
        return bytes(data)


def user_agent(contact: str = "") -> str:
    """Say who asks, as museums wish: the program, and how its user may be reached."""
    return f"kaleidogan/{__version__}" + (f" ({contact})" if contact else "")


def _prepared(address: str, params: Mapping[str, str] | None) -> str:
    try:
        return requests.Request("GET", address.strip(), params=params).prepare().url or ""
    except (requests.RequestException, UnicodeError, ValueError) as error:
        raise FetchError("not a web address") from error


def _check_address(address: str) -> None:
    scheme = urlsplit(address).scheme
    if scheme not in ("http", "https"):
        raise FetchError("not an http or https address", f"{scheme}:")


def _redirected(address: str, location: str) -> str:
    target = urljoin(address, location)
    if urlsplit(address).scheme == "https" and urlsplit(target).scheme == "http":
        raise FetchError("redirected from https to http")
    return target


def _seconds(retry_after: str) -> float:
    """Read the header Retry-After, which is a number of seconds or a date."""
    if retry_after.strip().isdigit():
        return float(retry_after)
    try:
        until = email.utils.parsedate_to_datetime(retry_after)
    except ValueError:
        return 0.0
    return max(0.0, (until.replace(tzinfo=until.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def _cause(error: BaseException) -> str:
    """Find the system's own words; the libraries' hold addresses in memory, which differ from run to run."""
    words, seen = "", error.__cause__ or error.__context__
    while seen is not None:
        if isinstance(seen, OSError) and seen.strerror:
            words = seen.strerror
        seen = seen.__cause__ or seen.__context__
    return words
