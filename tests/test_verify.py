"""What is lost is found, counted and named, whatever was done to a shard."""

import gzip
import json
import random
import resource
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import write_set
from kaleidogan import cli
from kaleidogan.data.files import DataError, Folder
from kaleidogan.data.shards import BLOCK, Index, load_index
from kaleidogan.data.verify import inspect, verify

SHARD = "000001.tar"
MEMORY = 256 * 1024
"""KiB."""


def damage_by_kind(data: bytes, index: Index) -> Iterator[tuple[str, bytes]]:
    """Every kind of damage to a shard's bytes, named."""
    header = int(index.rows[index.rows["shard"] == 1][1]["offset"]) - BLOCK
    for cut in range(0, len(data), BLOCK):
        yield f"cut at {cut}", data[:cut]
    for place in range(BLOCK):
        yield f"header byte {place} flipped", flip(data, header + place)
    yield "zero bytes", bytes(len(data))
    yield "gzip", gzip.compress(data, mtime=0)
    yield "twice", data + data
    yield "no end blocks", data.rstrip(b"\0")
    yield "garbage", random.Random(0).randbytes(len(data))
    yield "garbage behind", data + b"x" * 100
    yield "text", b"<html>404</html>"


def flip(data: bytes, place: int, bit: int = 0) -> bytes:
    return data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]


def count_lost(index: Index, before: bytes, after: bytes) -> int:
    """The samples of the shard whose header or picture is not what it was: what must be found."""
    lost = 0
    for row in index.rows[index.rows["shard"] == 1]:
        part = slice(int(row["offset"]) - BLOCK, int(row["offset"]) + int(row["size"]))
        lost += before[part] != after[part]
    return lost


def check(folder: Path, index: Index, name: str, before: bytes, after: bytes) -> None:
    """Damage the shard and read the set: only what is documented happens, and the count is right."""
    (folder / SHARD).write_bytes(after)
    began = time.monotonic()
    found = inspect(Folder(folder))
    assert time.monotonic() - began < 10, name
    assert found.lost == count_lost(index, before, after), name
    assert (found.shards, found.samples) == (len(index.shards), len(index))
    assert bool(found.errors) == (after != before), name
    assert all(SHARD in error for error in found.errors), (name, found.errors)
    # Training refuses at the start or when it comes to a sample, or has nothing to complain about.
    if len(after) != len(before):
        with pytest.raises(DataError, match=SHARD):
            load_index(folder)


def test_damaged_shards(tmp_path):
    index = write_set(tmp_path / "set", count=12, per_shard=4)
    before = (tmp_path / "set" / SHARD).read_bytes()
    cases = list(damage_by_kind(before, index))
    for name, after in random.Random(1).sample(cases, 120) + cases[-7:]:
        check(tmp_path / "set", index, name, before, after)
    check(tmp_path / "set", index, "nothing", before, before)


@pytest.mark.slow
def test_1500_damaged_shards(tmp_path):
    """Every 512-byte cut, every header's bytes flipped, any other bytes flipped: 1,500 in all."""
    index = write_set(tmp_path / "set", count=12, per_shard=4)
    before = (tmp_path / "set" / SHARD).read_bytes()
    cases = list(damage_by_kind(before, index))
    rng = random.Random(2)
    while len(cases) < 1500:
        place, bit = rng.randrange(len(before)), rng.randrange(8)
        cases.append((f"byte {place}, bit {bit} flipped", flip(before, place, bit)))
    siblings = sorted(tmp_path.iterdir())
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name, after in cases:
        check(tmp_path / "set", index, name, before, after)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < MEMORY
    assert sorted(tmp_path.iterdir()) == siblings
    assert {path.name for path in (tmp_path / "set").iterdir()} == {
        "000000.tar", SHARD, "000002.tar", "aspects.npy", "index.json", "samples.npy"
    }  # fmt: skip


@pytest.mark.parametrize("name", ["index.json", "samples.npy"])
def test_a_damaged_index_is_one_error(tmp_path, name):
    write_set(tmp_path / "set")
    path = tmp_path / "set" / name
    before = path.read_bytes()
    rng = random.Random(3)
    cases = [before[:cut] for cut in rng.sample(range(len(before)), 60)]
    cases += [flip(before, rng.randrange(len(before)), rng.randrange(8)) for _ in range(150)]
    cases += [b"", b"[]", b"null", b"{}", b"[" * 10_000, b'{"format": 2}', b"\x93NUMPY\x01\x00\xff\xff"]
    for after in cases:
        path.write_bytes(after)
        found = inspect(Folder(tmp_path / "set"))
        if found.errors:
            assert "set" in found.errors[0]
        elif name == "samples.npy":
            raise AssertionError("samples.npy has a hash")
    path.write_bytes(before)
    assert inspect(Folder(tmp_path / "set")).errors == []


def test_a_changed_label_is_no_lost_picture_but_is_told(tmp_path):
    write_set(tmp_path / "set")
    path = tmp_path / "set" / SHARD
    data = path.read_bytes()
    place = data.index(b"00000006.cls") + BLOCK
    path.write_bytes(data[:place] + b"2" + data[place + 1 :])
    found = inspect(Folder(tmp_path / "set"))
    assert found.lost == 0
    assert found.errors == [
        f"{tmp_path}/set/{SHARD} has another SHA-256 than the index says; "
        f"its pictures are as they were written"
    ]


def test_what_training_does_not_read_is_looked_at_too(tmp_path):
    write_set(tmp_path / "set")
    path = tmp_path / "set" / "aspects.npy"
    path.write_bytes(flip(path.read_bytes(), 130))
    assert inspect(Folder(tmp_path / "set")).errors == [f"{path} is not the one that was written"]
    path.unlink()
    assert "cannot be read" in inspect(Folder(tmp_path / "set")).errors[0]


def test_the_last_line_is_json_and_the_status_tells(tmp_path, capsys):
    write_set(tmp_path / "set")
    verify(path=str(tmp_path / "set"), num_workers=0)
    assert json.loads(capsys.readouterr().out) == {"shards": 4, "samples": 20, "lost": 0, "errors": []}
    (tmp_path / "set" / SHARD).unlink()
    with pytest.raises(DataError, match=r"6 of 20 samples in '.*' are lost: .*000001.tar is missing"):
        verify(path=str(tmp_path / "set"), num_workers=2)
    found = json.loads(capsys.readouterr().out)
    assert (found["samples"], found["lost"], len(found["errors"])) == (20, 6, 1)
    with pytest.raises(DataError, match=r"no data set in '.*none'"):
        verify(path=str(tmp_path / "none"))
    assert json.loads(capsys.readouterr().out)["shards"] == 0


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """Run the real command; gives its status and what it printed."""

    def start(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["kaleidogan", "verify", *arguments])
        try:
            cli.main()
        except SystemExit as end:
            return int(end.code or 0), capsys.readouterr().out
        return 0, capsys.readouterr().out

    return start


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
def test_the_command(folder, run):
    write_set(folder / "a set", count=30)
    status, text = run("path=a set", "num_workers=0")
    assert (status, json.loads(text)["lost"]) == (0, 0)
    keys = ("path=a set", "batch_size=8", "seed=5")
    status, whole = run(*keys, "keys=9")
    lines = whole.splitlines()
    assert (status, len(lines), len(lines[0].split())) == (0, 9, 8)
    assert run(*keys, "keys=9", "ranks=2", "workers=1") == (0, whole)
    assert run(*keys, "keys=9", "ranks=4") == (0, whole)
    assert run(*keys, "keys=4", "start=5")[1].splitlines() == lines[5:]
    shutil.rmtree(folder / "a set")
    assert run("path=a set")[0] == 1
