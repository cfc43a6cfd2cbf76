"""Data sets that are far away: what is loaded, how failures are met, and what the cache holds."""

import csv
import os
import pickle
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from conftest import blobs, write_set
from kaleidogan.data import transport
from kaleidogan.data.files import DataError, Entry, Folder, Patience, Remote, default_cache, open_files
from kaleidogan.data.reader import Reader
from kaleidogan.data.shards import load_index
from shard_server import Server, serve

QUICK = Patience(timeout=0.5, retries=3, pause=0.01)


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setattr(transport, "CHUNK", 4096)
    write_set(tmp_path / "origin", count=40, per_shard=10)
    with serve(tmp_path / "origin") as found:
        yield found


def remote(server: Server, tmp_path: Path, max_bytes: int = 10**9, patience: Patience = QUICK) -> Remote:
    return Remote(server.address, tmp_path / "cache", max_bytes, patience)


def cached(tmp_path):
    return {path.name for path in (tmp_path / "cache").iterdir() if not path.name.startswith(".")}


def test_a_far_set_reads_as_a_near_one(server, tmp_path):
    index = load_index(remote(server, tmp_path))
    reader = Reader(index)
    for number, picture in enumerate(blobs(40)):
        assert np.array_equal(reader.read(number), picture)
    assert index.place == server.address
    assert {shard.sha256 for shard in index.shards} < cached(tmp_path)
    asked = dict(server.asked)
    again = Reader(load_index(remote(server, tmp_path)))
    again.read(0)
    assert server.asked["000000.tar"] == asked["000000.tar"]


def test_a_reader_travels_to_another_process(server, tmp_path):
    reader = pickle.loads(pickle.dumps(Reader(load_index(remote(server, tmp_path)))))
    assert np.array_equal(reader.read(7), blobs(8)[7])


@pytest.mark.parametrize(
    "faults",
    [["500", "500"], ["cut"], ["short", "cut", "500"], ["stall"], ["cut", "cut", "cut"], ["flip"]],
)
def test_what_breaks_is_tried_again(server, tmp_path, faults):
    server.faults["000001.tar"] = list(faults)
    index = load_index(remote(server, tmp_path))
    assert np.array_equal(Reader(index).read(12), blobs(13)[12])
    assert not server.faults["000001.tar"]


def test_what_was_loaded_is_not_loaded_again(server, tmp_path):
    server.faults["000001.tar"] = ["", "", "500", "cut"]
    index = load_index(remote(server, tmp_path))
    Reader(index).read(10)
    starts = server.starts["000001.tar"]
    assert starts[:2] == [0, 4096]
    assert starts[2:4] == [8192, 8192]
    assert sorted(starts) == starts


def test_a_partial_file_of_a_killed_process_is_gone_on_with(server, tmp_path):
    files = remote(server, tmp_path)
    entry = load_index(files).shards[2].entry
    whole = (server.folder / entry.name).read_bytes()
    (tmp_path / "cache" / f".{entry.sha256}.{entry.bytes}.partial").write_bytes(whole[:5000])
    assert files.fetch(entry).read_bytes() == whole
    assert server.starts[entry.name][0] == 5000
    (tmp_path / "cache" / f".{entry.sha256}.{entry.bytes}.partial").write_bytes(b"x" * len(whole))
    files.fetch(entry).unlink()
    assert files.fetch(entry).read_bytes() == whole


def test_a_server_without_ranges_will_do(server, tmp_path):
    server.ranges = False
    index = load_index(remote(server, tmp_path))
    assert np.array_equal(Reader(index).read(12), blobs(13)[12])


@pytest.mark.parametrize(
    ("fault", "error", "message", "asked"),
    [
        ("404", FileNotFoundError, "gives no 000001.tar", 1),
        ("500", OSError, "gives no 000001.tar after 4 attempts: .*500", 4),
        ("loop", OSError, "after 4 attempts: .*TooManyRedirects", None),
        ("file", OSError, "after 4 attempts", 4),
        ("flip", DataError, "came twice with another SHA-256", None),
    ],
)
def test_what_stays_broken_is_an_error(server, tmp_path, fault, error, message, asked):
    server.faults["000001.tar"] = [fault] * 60
    files = remote(server, tmp_path)
    index = load_index(files)
    began = time.monotonic()
    with pytest.raises(error, match=message):
        files.fetch(index.shards[1].entry)
    assert time.monotonic() - began < 10
    assert asked is None or server.asked["000001.tar"] == asked
    # The reader says so too, and does not ask again for each sample of the shard.
    server.asked.clear()
    reader = Reader(index)
    for number in (10, 11, 12):
        with pytest.raises(DataError, match=r"/set/000001\.tar cannot be had: .*000001\.tar"):
            reader.read(number)
    assert asked is None or server.asked["000001.tar"] == asked
    assert np.array_equal(reader.read(20), blobs(21)[20])


def test_a_copy_that_went_bad_comes_anew(server, tmp_path):
    index = load_index(remote(server, tmp_path))
    shard = index.shards[1]
    Reader(index).read(12)
    path = tmp_path / "cache" / shard.sha256
    whole = path.read_bytes()
    place = int(index.rows[12]["offset"]) + 40
    for damaged in (whole[:-100], whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]):
        path.write_bytes(damaged)
        assert np.array_equal(Reader(index).read(12), blobs(13)[12])
        assert path.read_bytes() == whole
    # What is damaged where it comes from is not asked for again and again.
    server.asked.clear()
    broken = bytearray((server.folder / shard.name).read_bytes())
    broken[place] ^= 1
    (server.folder / shard.name).write_bytes(broken)
    path.unlink()
    with pytest.raises(DataError, match="came twice with another SHA-256"):
        Reader(index).read(12)


def test_who_may_not_read_is_told_at_once(server, tmp_path):
    server.faults["000001.tar"] = ["403"] * 9
    files = remote(server, tmp_path)
    index = load_index(files)
    with pytest.raises(PermissionError, match=r"gives no 000001.tar: status 403"):
        files.fetch(index.shards[1].entry)
    assert server.asked["000001.tar"] == 1


def test_loads_that_are_under_way_count(server, tmp_path):
    index = load_index(remote(server, tmp_path))
    entry = index.shards[0].entry
    cache = tmp_path / "cache"
    (cache / f".{'a' * 64}.{10**9}.partial").write_bytes(b"half")
    (cache / f".{'b' * 64}.{10**9}.partial").write_bytes(b"half")
    os.utime(cache / f".{'b' * 64}.{10**9}.partial", (0, 0))
    Remote(server.address, cache, 10**9 + 100, QUICK).fetch(entry)
    # There was room for nothing else beside the one; the other was given up long ago.
    assert cached(tmp_path) == {entry.sha256}
    assert not (cache / f".{'b' * 64}.{10**9}.partial").exists()


def test_a_server_that_is_not_there_is_an_error(tmp_path):
    files = Remote("http://127.0.0.1:9/set", tmp_path / "cache", 10**9, Patience(0.5, 1, 0.01))
    with pytest.raises(OSError, match=r"'http://127.0.0.1:9/set' gives no index.json after 2 attempts"):
        load_index(files)


def test_the_cache_is_bounded_and_the_oldest_goes_first(server, tmp_path):
    index = load_index(remote(server, tmp_path))
    sizes = [shard.bytes for shard in index.shards]
    limit = sum(sizes[:2]) + sum((tmp_path / "cache" / name).stat().st_size for name in cached(tmp_path))
    files = remote(server, tmp_path, limit)
    index = load_index(files)
    reader = Reader(index)
    for number in (0, 10, 0, 20, 30):
        reader.read(number)
        size = sum((tmp_path / "cache" / name).stat().st_size for name in cached(tmp_path))
        assert size <= limit
    names = [shard.sha256 for shard in index.shards]
    assert names[3] in cached(tmp_path)
    assert names[0] not in cached(tmp_path)
    # A file that was let go is read while it is open, and its disk space is given back with the next.
    assert np.array_equal(reader.read(5), blobs(6)[5])
    assert names[0] in cached(tmp_path)


def test_one_process_loads_while_others_wait(server, tmp_path):
    entry = load_index(remote(server, tmp_path)).shards[0].entry
    server.asked.clear()
    threads = [threading.Thread(target=lambda: remote(server, tmp_path).fetch(entry)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.asked[entry.name] == -(-entry.bytes // 4096)
    assert (tmp_path / "cache" / entry.sha256).stat().st_size == entry.bytes
    assert not [path for path in (tmp_path / "cache").iterdir() if path.name.endswith(".partial")]


@pytest.mark.parametrize(
    "name", ["../../x.tar", "/etc/passwd", "-o.tar", ".hidden", "a/b.tar", "a b.tar", ""]
)
def test_an_index_may_not_name_any_file(tmp_path, name):
    write_set(tmp_path / "set", count=4)
    path = tmp_path / "set" / "index.json"
    path.write_text(path.read_text().replace('"000000.tar"', f'"{name}"'))
    with pytest.raises(DataError, match=r"index.json is broken: shards.0.name"):
        load_index(tmp_path / "set")


def test_a_command_is_run_only_if_that_is_allowed(tmp_path):
    write_set(tmp_path / "set")
    place = f"pipe:cat {tmp_path}/set/{{}}"
    with pytest.raises(ValueError, match="would run a command; if that is what you want, set pipe=true"):
        open_files(place)
    files = open_files(place, cache=tmp_path / "cache", patience=QUICK, pipe=True)
    assert np.array_equal(Reader(load_index(files)).read(7), blobs(8)[7])


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("false", "the command ended with status 1: false"),
        ("sleep 30", "the command gave nothing for 0.3 s"),
        ("cat /dev/zero", "gave more than"),
        ("no-such-command", "No such file"),
        ("echo $(touch {}); touch marker", "index.json is not JSON|format None|is broken"),
    ],
)
def test_a_command_that_fails_is_an_error(tmp_path, monkeypatch, command, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("kaleidogan.data.files.MAX_INDEX", 2**20)
    files = Remote(f"pipe:{command}", tmp_path / "cache", 10**9, Patience(0.3, 1, 0.01))
    with pytest.raises((OSError, ValueError), match=message):
        load_index(files)
    assert not list(tmp_path.glob("marker*"))


def test_places():
    assert isinstance(open_files("data/x"), Folder)
    for place in ("http://a/b", "https://a/b", "s3://a/b", "gs://a/b"):
        assert isinstance(open_files(place), Remote)
    with pytest.raises(ValueError, match="'ftp://a': ftp:// is none of http://"):
        open_files("ftp://a")


def test_the_cache_is_where_caches_are(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert default_cache() == Path("/somewhere/kaleidogan")


def test_a_full_disk_is_said(server, tmp_path, monkeypatch):
    files = remote(server, tmp_path)
    entry = load_index(files).shards[0].entry

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(transport.Network, "_request", full)
    with pytest.raises(OSError, match=r"the cache '.*cache' has no space left for 000000\.tar") as caught:
        files.fetch(entry)
    assert caught.value.errno == 28


def test_an_old_set_can_be_read_from_a_folder(tmp_path):
    """Format 1 had no hashes of samples, and none of what lies beside the shards."""
    import json

    write_set(tmp_path / "set")
    folder = tmp_path / "set"
    rows = np.load(folder / "samples.npy")
    np.save(
        folder / "samples.npy",
        rows[[name for name in rows.dtype.names if name != "hash"]].astype(
            [entry for entry in rows.dtype.descr if entry[0] != "hash"]
        ),
    )
    about = json.loads((folder / "index.json").read_text())
    about = {key: value for key, value in about.items() if key not in ("samples", "aspects")} | {"format": 1}
    (folder / "index.json").write_text(json.dumps(about))
    reader = Reader(load_index(folder))
    assert np.array_equal(reader.read(7), blobs(8)[7])
    with serve(folder) as server, pytest.raises(DataError, match="can only be read from a folder"):
        load_index(remote(server, tmp_path))


S3 = """
import os, sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
host, port = server.get_host_and_port()
print(port, flush=True)
sys.stdin.read()
server.stop()
"""


@pytest.fixture
def bucket(monkeypatch):
    """An S3-compatible server in a process of its own, with an empty bucket."""
    import s3fs

    process = subprocess.Popen([sys.executable, "-c", S3], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    port = int(process.stdout.readline())
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    system = s3fs.S3FileSystem(skip_instance_cache=True)
    system.mkdir("pictures")
    yield system
    process.communicate(b"")


@pytest.mark.slow
def test_s3(bucket, tmp_path, capsys):
    from kaleidogan.data.verify import verify

    write_set(tmp_path / "set")
    bucket.put(str(tmp_path / "set"), "pictures/", recursive=True)
    found = verify(path="s3://pictures/set", cache=str(tmp_path / "cache"), num_workers=0)
    assert (found.samples, found.lost, found.errors) == (20, 0, [])
    files = Remote("s3://pictures/set", tmp_path / "cache", 10**9, Patience(5, 1, 0.01))
    with pytest.raises(FileNotFoundError, match=r"gives no 000009.tar"):
        files.fetch(Entry("000009.tar", 1, "0" * 64))
    assert os.environ["AWS_ENDPOINT_URL"].startswith("http://127.0.0.1")


@pytest.mark.slow
def test_a_training_from_s3_is_the_one_from_a_folder(bucket, train, folder):
    write_set(folder / "set", count=40, per_shard=10)
    bucket.put(str(folder / "set"), "pictures/", recursive=True)
    settings = ("logger=csv", "data.mirror=true", "data.window=2")
    near = train(*settings, name="near")
    far = train(
        *settings, "data.path=s3://pictures/set", "data.cache=cache", "data.num_workers=2", name="far"
    )
    ours = ("speed/", "memory/")
    rows = []
    for run in (near, far):
        with (run / "metrics.csv").open() as stream:
            rows.append(
                [{k: v for k, v in row.items() if not k.startswith(ours)} for row in csv.DictReader(stream)]
            )
    assert rows[0] == rows[1]
    assert len(rows[0]) > 1
    assert len([path for path in (folder / "cache" / "files").iterdir() if path.name[0] != "."]) == 5
