"""What is known of a work of art, and the rules by which it is taken or left out."""

import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Work:
    """One work with a picture, as a museum or a list describes it.

    Attributes:
        id: what its source calls it.
        address: of the picture; empty if there is none.
        title: empty if it is not known, as are all texts.
        artist: the first one named.
        born: the artist's year of birth.
        died: the artist's year of death; None if it is not known or the artist lives.
        date: when it was made, in words.
        made: the first and the last year in which it may have been made.
        genre: what kind of work it is and what it shows, in the source's words.
        style: its movement, period and department, in the source's words.
        public_domain: whether the source says so.
        licence: in the source's words.
        page: where to read about it.
        museum: its owner.
    """

    id: str
    address: str
    title: str = ""
    artist: str = ""
    born: int | None = None
    died: int | None = None
    date: str = ""
    made: tuple[int, int] | None = None
    genre: tuple[str, ...] = ()
    style: tuple[str, ...] = ()
    public_domain: bool = False
    licence: str = ""
    page: str = ""
    museum: str = ""


@dataclass(frozen=True)
class Missing:
    """A work that a source names and cannot give.

    Attributes:
        id: what the source calls it.
        reason: the kind of fault, the same text for all works that have it.
        address: where it was looked for.
        detail: what is particular to this one; may be empty.
        passing: whether it may be otherwise the next time.
    """

    id: str
    reason: str
    address: str = ""
    detail: str = ""
    passing: bool = False


@dataclass(frozen=True)
class Rules:
    """Which works are taken: those that meet every rule that is set. A year that is not known meets none.

    Attributes:
        genre: words of which one has to begin a word of the work's genre, in any case.
        style: likewise of its style.
        made_after: every year in which the work may have been made is later than this.
        made_before: likewise earlier.
        born_after: the artist was born later than this year.
        born_before: the artist was born earlier than this year.
        died_before: the artist died earlier than this year. With `born_before` too, one of both is enough,
            but the year of death has to be known.
        public_domain: the source says that the work is in the public domain.
    """

    genre: tuple[str, ...] = ()
    style: tuple[str, ...] = ()
    made_after: int | None = None
    made_before: int | None = None
    born_after: int | None = None
    born_before: int | None = None
    died_before: int | None = None
    public_domain: bool = True

    def against(self, work: Work) -> str | None:
        """Say why a work is left out, in the same words for all that are for this reason; None to take it."""
        if self.public_domain and not work.public_domain:
            return "not said to be in the public domain"
        if not work.address:
            return "no picture"
        for kind, words, terms in (("genre", self.genre, work.genre), ("style", self.style, work.style)):
            if words and not says(terms, words):
                return f"{kind} is not {' or '.join(words)}"
        return self._against_date(work.made) or self._against_birth(work) or self._against_death(work)

    def _against_date(self, made: tuple[int, int] | None) -> str | None:
        if self.made_after is None and self.made_before is None:
            return None
        if made is None:
            return "it is not known when it was made"
        if self.made_after is not None and made[0] <= self.made_after:
            return f"not surely made after {self.made_after}"
        if self.made_before is not None and made[1] >= self.made_before:
            return f"not surely made before {self.made_before}"
        return None

    def _against_birth(self, work: Work) -> str | None:
        if self.born_after is None and self.born_before is None:
            return None
        if work.born is None:
            return "the artist's year of birth is not known"
        if self.born_after is not None and work.born <= self.born_after:
            return f"the artist was not born after {self.born_after}"
        if self.died_before is None and self.born_before is not None and work.born >= self.born_before:
            return f"the artist was not born before {self.born_before}"
        return None

    def _against_death(self, work: Work) -> str | None:
        if self.died_before is None:
            return None
        if work.died is None or work.died <= 0:
            return "the artist's year of death is not known"
        if work.died < self.died_before:
            return None
        if self.born_before is None:
            return f"the artist did not die before {self.died_before}"
        if work.born is not None and work.born < self.born_before:
            return None
        return f"the artist was neither born before {self.born_before} nor dead before {self.died_before}"


def says(terms: Iterable[str], words: Iterable[str]) -> bool:
    """Whether a word of the terms begins with one of the words, in any case: `landscape`, `Landscapes`."""
    text = "\n".join(terms)
    return any(re.search(rf"\b{re.escape(word.strip())}", text, re.IGNORECASE) for word in words)


def year_of(value: object) -> int | None:
    """Read a year as museums give it, 1853, "1853" or "ca. 1853 "; what is no year is None."""
    if isinstance(value, str):
        # Two digits are a century or a day.
        found = re.search(r"(?<!\d)-?\d{3,4}(?!\d)", value)
        value = int(found[0]) if found else None
    # 9999 is the Met's mark of an artist who lives, 0 that of years that are not known.
    if isinstance(value, int | float) and -9999 < value < 9999 and value != 0:
        return int(value)
    return None


def years_in(text: str) -> tuple[int, int] | None:
    """Find the first and the last year in words such as "1889", "c. 1850-60" or "between 1901 and 1905"."""
    years: list[int] = []
    for first, tail in re.findall(r"(?<!\d)(\d{4})(?!\d)(?:\s*[-/\u2013]\s*(\d{2})(?!\d))?", text):
        years.append(int(first))
        if tail:
            years.append(int(first[:2] + tail))
    return (min(years), max(years)) if years else None
