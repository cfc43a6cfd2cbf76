"""Where pictures come from: a folder, a zip, a tar or a folder of tars, as WebDataset has them.

All are listed and read alike, and never unpacked onto disk.
"""

import bz2
import gzip
import lzma
import os
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import IO

from kaleidogan.data.files import INDEX
from kaleidogan.data.preparing.pictures import ENDINGS, MAX_BYTES, PictureError

BLOCK = 512
MAX_RATIO = 100
"""A compressed tar that unpacks to more than this many times its size holds no pictures."""
CHUNK = 2**20
COMPRESSED: dict[bytes, Callable[[Path], gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile]] = {
    b"\x1f\x8b": gzip.GzipFile,
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ": lzma.LZMAFile,
}
"""By a file's first bytes: what unpacks it."""
UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    RuntimeError,
    NotImplementedError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)
"""What reading a file or a member raises: RuntimeError is zipfile's word for a missing password."""
NOT_REGULAR = "not a regular file"
LINKED = "a link to a picture that is taken already"
LINKED_FOLDER = "a link to a folder, which is not followed"


@dataclass(frozen=True)
class Member:
    """One file of a source.

    Attributes:
        name: its path within the source, with `/`.
        target: the path within the source that it leads to, if it is a symbolic link.
        refused: why it is not read; None if it is.
        stamp: changes when its content does: what the source says of its size and time, or its CRC.
    """

    name: str
    target: str | None = None
    refused: str | None = None
    stamp: str = field(default="", compare=False)


@dataclass(frozen=True)
class Source:
    """A folder, zip or tar that is open for reading.

    Attributes:
        members: all its files, sorted by name.
        read: gives one member's bytes, by name; raises PictureError.
    """

    members: list[Member]
    read: Callable[[str], bytes]


@dataclass(frozen=True)
class Selection:
    """What of a source is to be read.

    Attributes:
        names: the pictures, sorted.
        excluded: how many pictures each pattern took away; a picture counts for the first that matches.
        refused: reason by name of what looks like a picture and is not to be read.
        others: how many files have an ending that is none of a picture's, by ending.
    """

    names: list[str]
    excluded: dict[str, int]
    refused: dict[str, str]
    others: dict[str, int]


def select(source: Source, exclude: tuple[str, ...]) -> Selection:
    """Choose a source's pictures by their endings and by the patterns that leave some out.

    Args:
        source: what is there.
        exclude: glob patterns, matched without regard to case against a picture's path within the source
            and against each folder and file name in it; for a link, likewise against what it leads to.
    """
    excluded = dict.fromkeys(exclude, 0)
    others: Counter[str] = Counter()
    chosen: list[Member] = []
    for member in source.members:
        ending = PurePosixPath(member.name).suffix.lower()
        if ending not in ENDINGS and member.refused != LINKED_FOLDER:
            others[ending or "no ending"] += 1
        elif pattern := _first_match(member, exclude):
            excluded[pattern] += 1
        else:
            chosen.append(member)
    refused = {member.name: member.refused for member in chosen if member.refused is not None}
    taken = {member.name for member in chosen if member.target is None}
    for member in chosen:
        if member.target is not None and member.refused is None:
            if member.target in taken:
                refused[member.name] = LINKED
            taken.add(member.target)
    names = [member.name for member in chosen if member.name not in refused]
    return Selection(names, excluded, refused, dict(others.most_common()))


def _first_match(member: Member, patterns: tuple[str, ...]) -> str | None:
    paths = [path.lower() for path in (member.name, member.target) if path is not None]
    names = {name for path in paths for name in (path, *path.split("/"))}
    return next((p for p in patterns if any(fnmatchcase(name, p.lower()) for name in names)), None)


@contextmanager
def open_source(path: Path) -> Iterator[Source]:
    """Open a folder, a zip, a tar (plain, or with gzip, bzip2 or xz), or a folder of tars and no pictures.

    Raises:
        FileNotFoundError: if nothing is there.
        ValueError: if it is something else, or a damaged archive.
    """
    if path.is_dir():
        folder = _folder(path.resolve())
        yield _shards(path.resolve(), folder) or folder
        return
    if not path.is_file():
        raise FileNotFoundError(f"source '{path}' does not exist; give a folder, a zip or a tar of pictures")
    with _unpacked(path) as stream:
        if _is_tar(stream):
            yield _tar(path, stream)
            return
    if not zipfile.is_zipfile(path):
        raise ValueError(f"source '{path}' is neither a folder nor a zip nor a tar of pictures")
    try:
        archive = zipfile.ZipFile(path)
    except UNREADABLE as error:
        raise ValueError(f"source '{path}' is a damaged zip: {error}") from error
    with archive:
        yield _zip(archive)


def _folder(root: Path) -> Source:
    members: list[Member] = []
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        # A folder that may not be read stops the run: nobody could say how many pictures are missing.
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    # What `prepare` makes, or is making, is no heap: its sheets are not to be learnt.
                    if not (Path(entry.path) / INDEX).is_file() and not entry.name.endswith(".partial"):
                        waiting.append(Path(entry.path))
                else:
                    members.append(_folder_member(root, entry))

    def read(name: str) -> bytes:
        try:
            with (root / name).open("rb") as stream:
                return _read_whole(stream.read, os.fstat(stream.fileno()).st_size)
        except OSError as error:
            raise PictureError("cannot be read", error.strerror or str(error)) from error

    return Source(sorted(members, key=lambda member: member.name), read)


def _shards(root: Path, folder: Source) -> Source | None:
    """Join the tars of a data set, or of a folder without pictures; None if it is neither."""
    names = [member.name for member in folder.members if member.refused is None]
    tars = [name for name in names if PurePosixPath(name).suffix == ".tar"]
    is_set = INDEX in names
    if not tars or (not is_set and any(PurePosixPath(name).suffix.lower() in ENDINGS for name in names)):
        return None
    members = [Member(INDEX)] if is_set else []
    places: dict[str, tuple[Path, int, int]] = {}
    for tar in tars:
        with (root / tar).open("rb") as stream:
            found, where = _list_tar(root / tar, stream)
        members += [replace(member, name=f"{tar}/{member.name}") for member in found.values()]
        places |= {f"{tar}/{name}": (root / tar, *place) for name, place in where.items()}

    def read(name: str) -> bytes:
        if name == INDEX:
            return folder.read(name)
        path, offset, size = places[name]
        with path.open("rb") as stream:
            stream.seek(offset)
            return _read_whole(stream.read, size)

    return Source(sorted(members, key=lambda member: member.name), read)


def _folder_member(root: Path, entry: os.DirEntry[str]) -> Member:
    name = Path(entry.path).relative_to(root).as_posix()
    if not entry.is_symlink():
        status = entry.stat(follow_symlinks=False)
        stamp = f"{status.st_size} {status.st_mtime_ns}"
        return Member(name, refused=None if entry.is_file() else NOT_REGULAR, stamp=stamp)
    try:
        target = Path(entry.path).resolve(strict=True)
    except (OSError, RuntimeError):  # RuntimeError: a circle, before Python 3.13
        return Member(name, refused="a link that leads nowhere")
    if target.is_dir():
        return Member(name, refused=LINKED_FOLDER)
    if not target.is_relative_to(root):
        return Member(name, refused="a link that leaves the source")
    refused = None if target.is_file() else f"a link to what is {NOT_REGULAR}"
    return Member(name, target.relative_to(root).as_posix(), refused)


def _read_whole(read: Callable[[int], bytes], size: int) -> bytes:
    if size > MAX_BYTES:
        raise PictureError("larger than 64 MiB", f"{size} bytes")
    data = read(size)
    if len(data) < size:
        raise PictureError("cannot be read", f"it ends after {len(data)} of {size} bytes")
    return data


def _archive_member(path: str, regular: bool, stamp: str) -> Member:
    parts = [part for part in path.replace("\\", "/").split("/") if part not in ("", ".")]
    refused = None if regular else NOT_REGULAR
    if path.startswith("/") or ".." in parts:
        refused = "a path that leaves the archive"
    return Member("/".join(parts), refused=refused, stamp=stamp)


def _zip(archive: zipfile.ZipFile) -> Source:
    members: dict[str, Member] = {}
    places: dict[str, zipfile.ZipInfo] = {}
    # Where two members have one name the last counts, as it would if the archive were unpacked.
    for info in archive.infolist():
        if not info.is_dir():
            # Only an archive that was made on Unix says what kind of file it is.
            regular = stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG)
            member = _archive_member(info.filename, regular, f"{info.file_size} {info.CRC}")
            members[member.name], places[member.name] = member, info

    def read(name: str) -> bytes:
        try:
            with archive.open(places[name]) as stream:
                return _read_whole(stream.read, places[name].file_size)
        except PictureError:
            raise
        except UNREADABLE as error:
            raise PictureError("cannot be read", str(error)) from error

    return Source([members[name] for name in sorted(members)], read)


@contextmanager
def _unpacked(path: Path) -> Iterator[IO[bytes]]:
    """Open a file, by way of a nameless copy if it is compressed: members are read in any order."""
    with path.open("rb") as stream:
        start = stream.read(8)
        opener = next((opener for magic, opener in COMPRESSED.items() if start.startswith(magic)), None)
        if opener is None:
            yield stream
            return
    with tempfile.TemporaryFile() as copy:
        limit = MAX_RATIO * path.stat().st_size
        try:
            with opener(path) as packed:
                while chunk := packed.read(CHUNK):
                    copy.write(chunk)
                    if copy.tell() > limit:
                        raise ValueError(f"it unpacks to more than {MAX_RATIO} times its size")
        except UNREADABLE as error:
            raise ValueError(f"source '{path}' cannot be unpacked: {error}") from error
        yield copy


def _is_tar(stream: IO[bytes]) -> bool:
    stream.seek(0)
    try:
        tarfile.TarInfo.frombuf(stream.read(BLOCK), "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def _tar(path: Path, stream: IO[bytes]) -> Source:
    members, places = _list_tar(path, stream)

    def read(name: str) -> bytes:
        offset, size = places[name]
        stream.seek(offset)
        return _read_whole(stream.read, size)

    return Source([members[name] for name in sorted(members)], read)


def _list_tar(path: Path, stream: IO[bytes]) -> tuple[dict[str, Member], dict[str, tuple[int, int]]]:
    """List a tar's files, and where each lies: its offset and size."""
    members: dict[str, Member] = {}
    places: dict[str, tuple[int, int]] = {}
    stream.seek(0)
    try:
        with tarfile.open(fileobj=stream, mode="r:") as tar:
            for info in tar:
                if not info.isdir():
                    # isreg() is true of sparse members too, and a few bytes of those may claim gigabytes.
                    regular = info.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not info.issparse()
                    member = _archive_member(info.name, regular, f"{info.size} {info.mtime}")
                    members[member.name] = member
                    places[member.name] = (info.offset_data, info.size)
            _check_end(stream, tar.offset)
    except (tarfile.TarError, *UNREADABLE) as error:
        raise ValueError(f"source '{path}' is a damaged tar: {error}") from error
    return members, places


def _check_end(stream: IO[bytes], offset: int) -> None:
    """Python's tarfile takes a damaged header for the end of the archive; so see whether it is the end."""
    stream.seek(offset)
    end = stream.read(BLOCK)
    if len(end) < BLOCK:
        raise ValueError("it is cut off")
    if any(end):
        raise ValueError(f"no valid header at byte {offset}")
    while end := stream.read(CHUNK):
        if any(end):
            raise ValueError(f"more data after its end at byte {offset}; is it two archives in one file?")
