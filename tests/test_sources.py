"""Folders, zips and tars of pictures."""

import bz2
import gzip
import io
import lzma
import os
import random
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from kaleidogan.data.preparing import sources
from kaleidogan.data.preparing.pictures import MAX_BYTES, PictureError
from kaleidogan.data.preparing.sources import LINKED_FOLDER, Member, Source, open_source, select

FILES = {
    "b/two.png": b"2" * 700,
    "a.png": b"1",
    "b/c/three.JPG": b"",
    "notes.txt": b"x",
    "\u00e9 1.png": b"e",
}


def make_folder(path):
    for name, data in FILES.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def make_zip(path, files=None):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.mkdir("b")
        for name, data in (files or FILES).items():
            archive.writestr(name, data)
    return path


def make_tar(path, files=None, mode="w", prefix="./", **options):
    with tarfile.open(path, mode, **options) as archive:
        folder = tarfile.TarInfo("./b")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, data in (files or FILES).items():
            info = tarfile.TarInfo(prefix + name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


MAKERS = {
    "folder": make_folder,
    "zip": make_zip,
    "tar": make_tar,
    "gnu.tar": lambda path: make_tar(path, format=tarfile.GNU_FORMAT),
    "tar.gz": lambda path: make_tar(path, mode="w:gz"),
    "tar.bz2": lambda path: make_tar(path, mode="w:bz2"),
    "tar.xz": lambda path: make_tar(path, mode="w:xz"),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_every_kind_of_source_lists_and_reads_alike(kind, tmp_path):
    path = MAKERS[kind](tmp_path / f"s.{kind}")
    before = set(tmp_path.rglob("*"))
    with open_source(path) as source:
        assert source.members == [Member(name) for name in sorted(FILES)]
        # Not in the order in which they are stored.
        assert {name: source.read(name) for name in sorted(FILES, reverse=True)} == FILES
    assert set(tmp_path.rglob("*")) == before


def test_what_is_no_source(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"source '.*nowhere' does not exist; give a folder, a zip or a tar"
    ):
        open_source(tmp_path / "nowhere").__enter__()
    for data in (b"", b"text", bytes(1024), gzip.compress(b"text")):
        (tmp_path / "file").write_bytes(data)
        with pytest.raises(ValueError, match="is neither a folder nor a zip nor a tar"):
            open_source(tmp_path / "file").__enter__()


@pytest.mark.parametrize("packer", [gzip, bz2, lzma])
def test_damaged_compression(packer, tmp_path):
    whole = packer.compress(make_tar(tmp_path / "s.tar").read_bytes() + random.Random(0).randbytes(5000))
    (tmp_path / "s.tar.x").write_bytes(whole[:-100])
    with pytest.raises(ValueError, match="cannot be unpacked"):
        open_source(tmp_path / "s.tar.x").__enter__()


def test_a_compressed_bomb_is_given_up(tmp_path):
    (tmp_path / "s.tar.gz").write_bytes(gzip.compress(bytes(2**25)))
    with pytest.raises(ValueError, match="it unpacks to more than 100 times its size"):
        open_source(tmp_path / "s.tar.gz").__enter__()


def test_a_cut_or_damaged_tar_is_noticed(tmp_path):
    whole = make_tar(tmp_path / "s.tar", format=tarfile.USTAR_FORMAT).read_bytes()
    with tarfile.open(tmp_path / "s.tar") as archive:
        end = archive.getmembers()[-1].offset_data + 512
    for length in range(512, end + 1, 512):
        (tmp_path / "cut.tar").write_bytes(whole[:length])
        with pytest.raises(ValueError, match="is a damaged tar"):
            open_source(tmp_path / "cut.tar").__enter__()
    second = whole.index(b"./a.png")
    (tmp_path / "flip.tar").write_bytes(whole[:second] + b"X" + whole[second + 1 :])
    with pytest.raises(ValueError, match=f"damaged tar: no valid header at byte {second}"):
        open_source(tmp_path / "flip.tar").__enter__()
    (tmp_path / "joined.tar").write_bytes(whole + whole)
    with pytest.raises(ValueError, match="is it two archives in one file"):
        open_source(tmp_path / "joined.tar").__enter__()


def test_damaged_archives_raise_nothing_else(tmp_path):
    rng = random.Random(0)
    for path in (make_tar(tmp_path / "s.tar"), make_zip(tmp_path / "s.zip")):
        whole = path.read_bytes()
        for _ in range(150):
            data = bytearray(whole)
            for _ in range(rng.choice([1, 4])):
                data[rng.randrange(len(data))] = rng.randrange(256)
            path.write_bytes(data)
            try:
                with open_source(path) as source:
                    for member in source.members:
                        if not member.refused:
                            read_or_refuse(source, member.name)
            except ValueError as error:
                assert str(path) in str(error)  # noqa: PT017


def read_or_refuse(source, name):
    try:
        return source.read(name)
    except PictureError as error:
        return error.reason


def test_only_regular_members_of_an_archive_are_read(tmp_path):
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        for name, kind in {
            "link.png": tarfile.SYMTYPE,
            "hard.png": tarfile.LNKTYPE,
            "pipe.png": tarfile.FIFOTYPE,
            "sparse.png": tarfile.GNUTYPE_SPARSE,
            "../up.png": tarfile.REGTYPE,
            "/etc/root.png": tarfile.REGTYPE,
        }.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "a.png"
            archive.addfile(info)
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as archive:
        link = zipfile.ZipInfo("link.png")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("x/../../up.png", b"")
    for path, leaving in ((tmp_path / "s.tar", 2), (tmp_path / "s.zip", 1)):
        with open_source(path) as source:
            reasons = [member.refused for member in source.members]
            assert None not in reasons
            assert reasons.count("a path that leaves the archive") == leaving
            assert select(source, ()).names == []


def test_of_two_members_with_one_name_the_last_counts(tmp_path):
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        for data in (b"old", b"new"):
            info = tarfile.TarInfo("a.png")
            info.size = 3
            archive.addfile(info, io.BytesIO(data))
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as archive:
        archive.writestr("a.png", b"old")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a.png", b"new")
    for name in ("s.tar", "s.zip"):
        with open_source(tmp_path / name) as source:
            assert [member.name for member in source.members] == ["a.png"]
            assert source.read("a.png") == b"new"


def test_large_files_are_refused_unread(tmp_path):
    with (tmp_path / "huge.png").open("wb") as stream:
        stream.truncate(MAX_BYTES + 1)  # takes no room on the disk
    with zipfile.ZipFile(tmp_path / "s.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.write(tmp_path / "huge.png", "huge.png")
    for path in (tmp_path, tmp_path / "s.zip"):
        with (
            open_source(path) as source,
            pytest.raises(PictureError, match=r"larger than 64 MiB \(67108865 bytes\)"),
        ):
            source.read("huge.png")


def test_unreadable_members_are_refused(tmp_path):
    path = make_zip(tmp_path / "s.zip")
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        place = archive.getinfo("b/two.png").header_offset + 30 + len("b/two.png")
    data[place + 3] ^= 255
    path.write_bytes(data)
    with open_source(path) as source, pytest.raises(PictureError, match="cannot be read"):
        source.read("b/two.png")
    folder = make_folder(tmp_path / "folder")
    with open_source(folder) as source:
        (folder / "a.png").unlink()
        with pytest.raises(PictureError, match=r"cannot be read \(No such file or directory\)"):
            source.read("a.png")


def test_links_are_followed_only_to_files_inside(tmp_path):
    folder = make_folder(tmp_path / "folder")
    (tmp_path / "outside.png").write_bytes(b"secret")
    (folder / "objects").mkdir()
    (folder / "objects" / "123").write_bytes(b"annexed")
    links = {
        "in.png": "objects/123",
        "again.png": "in.png",
        "same.png": "a.png",
        "out.png": tmp_path / "outside.png",
        "dangling.png": "nothing",
        "circle.png": "circle.png",
        "pictures": "b",
    }
    for name, target in links.items():
        (folder / name).symlink_to(target)
    os.mkfifo(folder / "pipe.png")
    os.mkfifo(folder / "pipe")
    (folder / "to_pipe.png").symlink_to("pipe")
    with open_source(folder) as source:
        chosen = select(source, ())
        assert source.read("again.png") == b"annexed"
    taken = "a link to a picture that is taken already"
    assert chosen.refused == {
        "circle.png": "a link that leads nowhere",
        "dangling.png": "a link that leads nowhere",
        "in.png": taken,  # `again.png` came first
        "out.png": "a link that leaves the source",
        "pictures": LINKED_FOLDER,
        "pipe.png": "not a regular file",
        "same.png": taken,
        "to_pipe.png": "a link to what is not a regular file",
    }
    assert chosen.names == sorted(["a.png", "again.png", "b/c/three.JPG", "b/two.png", "\u00e9 1.png"])
    assert chosen.others == {"no ending": 2, ".txt": 1}


def listed(*members):
    return Source([m if isinstance(m, Member) else Member(m) for m in members], lambda name: b"")


@pytest.mark.parametrize(
    ("patterns", "left"),
    [
        ((), ["Icons/a.png", "art/b.png", "art/old/red_Button.png", "icons.png"]),
        (("icons",), ["art/b.png", "art/old/red_Button.png", "icons.png"]),
        (("ICONS", "*button*"), ["art/b.png", "icons.png"]),
        (("icons*",), ["art/b.png", "art/old/red_Button.png"]),
        (("art/old/*",), ["Icons/a.png", "art/b.png", "icons.png"]),
        (("art/*",), ["Icons/a.png", "icons.png"]),
        (("[ab].png",), ["art/old/red_Button.png", "icons.png"]),
        (("ar",), ["Icons/a.png", "art/b.png", "art/old/red_Button.png", "icons.png"]),
    ],
)
def test_exclude(patterns, left):
    source = listed("Icons/a.png", "art/b.png", "art/old/red_Button.png", "icons.png")
    chosen = select(source, patterns)
    assert chosen.names == left
    assert sum(chosen.excluded.values()) == 4 - len(left)


def test_exclude_counts_by_pattern_and_sees_through_links():
    source = listed(
        "icons/a.png", Member("new/link.png", "icons/a.png"), "b.png", Member("x.png", refused="broken")
    )
    chosen = select(source, ("icons", "a.*", "nothing", "x*"))
    assert chosen.excluded == {"icons": 2, "a.*": 0, "nothing": 0, "x*": 1}
    assert (chosen.names, chosen.refused) == (["b.png"], {})


def test_a_folder_that_cannot_be_listed_stops_the_run(tmp_path, monkeypatch):
    make_folder(tmp_path)
    real = os.scandir

    def scandir(path):
        if Path(path).name == "c":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(sources.os, "scandir", scandir)
    with pytest.raises(PermissionError, match=r"Permission denied: '.*c'"):
        open_source(tmp_path).__enter__()
