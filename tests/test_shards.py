"""A data set on disk, and what happens when it is not what its index says."""

import json
import pickle
import tarfile

import numpy as np
import pytest
import webdataset

from conftest import blobs, write_set
from kaleidogan.data import shards
from kaleidogan.data.files import DataError
from kaleidogan.data.reader import Reader, decode
from kaleidogan.data.shards import load_index
from kaleidogan.data.writing import write


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_pictures_come_back_as_they_were_written(tmp_path, channels):
    index = write_set(tmp_path / "set", channels=channels)
    reader = Reader(index)
    assert len(index) == 20
    assert [shard.samples for shard in index.shards] == [6, 6, 6, 2]
    for number, picture in enumerate(blobs(20, channels=channels)):
        assert np.array_equal(reader.read(number), picture)
    assert index.rows["label"].tolist() == [number % 3 for number in range(20)]


@pytest.mark.parametrize(("picture_format", "error"), [("png", 0), ("webp", 0), ("jpg", 12)])
@pytest.mark.parametrize("channels", [1, 3])
def test_formats(picture_format, error, channels):
    gradient = np.linspace(0, 255, 16)[:, None] * np.ones((16, 16))
    picture = np.stack([gradient, gradient[::-1], gradient.T], axis=2)[:, :, :channels].astype(np.uint8)
    back = decode(shards.encode(picture, picture_format), channels, (16, 16))
    assert np.abs(back.astype(int) - picture).max() <= error


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset_reads_the_shards(tmp_path):
    index = write_set(tmp_path / "set", count=5)
    found = list(webdataset.WebDataset(str(tmp_path / "set" / index.shards[0].name), shardshuffle=False))
    assert [sample["__key__"] for sample in found] == [f"{number:08d}" for number in range(5)]
    assert decode(found[2]["png"], 3, (16, 16)).shape == (16, 16, 3)
    assert found[2]["cls"] == b"2"


def test_equal_pictures_make_equal_bytes(tmp_path):
    one, other = write_set(tmp_path / "one"), write_set(tmp_path / "other")
    assert one.fingerprint == other.fingerprint
    assert one.fingerprint != write_set(tmp_path / "third", count=19).fingerprint


def test_an_unfinished_set_leaves_nothing(tmp_path):
    def broken():
        yield shards.Sample(shards.encode(blobs(1)[0], "png"), (16, 16))
        raise RuntimeError("the source broke off")

    with pytest.raises(RuntimeError):
        write(tmp_path / "set", broken(), shards.Description(resolution=(16, 16)))
    with pytest.raises(ValueError, match="no picture"):
        write(tmp_path / "set", [], shards.Description(resolution=(16, 16)))
    assert not list(tmp_path.iterdir())


def test_a_set_is_not_written_over(tmp_path):
    write_set(tmp_path / "set")
    with pytest.raises(FileExistsError, match="choose another folder"):
        write_set(tmp_path / "set")


def test_a_reader_travels_to_another_process(tmp_path):
    reader = Reader(write_set(tmp_path / "set"))
    reader.read(0)
    assert np.array_equal(pickle.loads(pickle.dumps(reader)).read(7), reader.read(7))


def test_what_is_missing_or_cut_is_named(tmp_path):
    folder = tmp_path / "set"
    with pytest.raises(FileNotFoundError, match="kaleidogan prepare"):
        load_index(folder)
    write_set(folder)
    shard = folder / "000001.tar"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-512])
    with pytest.raises(DataError, match=f"bytes; the index says {len(whole)}"):
        load_index(folder)
    shard.unlink()
    with pytest.raises(FileNotFoundError, match=r"000001\.tar is missing; the index lists it with 6 samples"):
        load_index(folder)


def test_a_newer_format_is_refused(tmp_path):
    write_set(tmp_path / "set")
    path = tmp_path / "set" / "index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 3}))
    with pytest.raises(DataError, match="format 3"):
        load_index(tmp_path / "set")


@pytest.mark.parametrize("place", ["header", "picture"])
def test_a_damaged_sample_is_named(tmp_path, place):
    index = write_set(tmp_path / "set")
    path = tmp_path / "set" / "000000.tar"
    data = bytearray(path.read_bytes())
    offset = int(index.rows[2]["offset"])
    data[offset - 512 + 3 if place == "header" else offset + 40] ^= 255
    path.write_bytes(data)
    reader = Reader(load_index(tmp_path / "set"))
    reader.read(1)
    with pytest.raises(DataError, match=r"sample 2 in .*000000\.tar is damaged"):
        reader.read(2)


def test_members_are_plain_files_with_one_time(tmp_path):
    write_set(tmp_path / "set")
    with tarfile.open(tmp_path / "set" / "000000.tar") as tar:
        assert all(member.isreg() and member.mtime == 0 for member in tar)
