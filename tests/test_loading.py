"""Items to batches: the same for any ranks, workers and start; and what is done about damage."""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from conftest import blobs, write_conditions, write_set
from kaleidogan.data.datamodule import ImageData
from kaleidogan.data.decoded import open_decoded
from kaleidogan.data.files import DataError
from kaleidogan.data.loading import Pictures, load_batches, standardized
from kaleidogan.data.order import Batches, Order
from kaleidogan.data.reader import Reader
from kaleidogan.data.shards import Index, load_index

BATCH = 8
MANY_WORKERS = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")


def global_batches(
    index: Index, start: int, count: int, ranks: int, workers: int, mirror: bool = True
) -> list[list[int]]:
    """The samples of global batches as the loaders of all ranks deliver them."""
    order = Order([shard.samples for shard in index.shards], seed=3, mirror=mirror, window=2)
    parts = []
    for rank in range(ranks):
        batches = Batches(
            order,
            batch_sizes=[BATCH],
            position=lambda: start,
            tick=10**9,
            stop=start + count * BATCH,
            rank=rank,
            world_size=ranks,
        )
        loader = load_batches(Pictures(index, Reader(index)), batches, workers)
        parts.append([batch["sample"].tolist() for batch in loader])
    return [[sample for part in shares for sample in part] for shares in zip(*parts, strict=True)]


@MANY_WORKERS
@pytest.mark.parametrize(
    "workers", [0, pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow), 1]
)
def test_a_global_batch_is_the_same_for_any_ranks_and_workers(tmp_path, workers):
    index = write_set(tmp_path / "set", count=30, per_shard=4)
    expected = Order([4] * 7 + [2], seed=3, mirror=True, window=2).items(0, 12 * BATCH).reshape(12, BATCH)
    for ranks in (1, 2, 4):
        found = global_batches(index, 0, 12, ranks, workers)
        assert found == (expected % 30).tolist(), f"{ranks} ranks"


def test_a_global_batch_is_the_same_after_a_resume_anywhere(tmp_path):
    index = write_set(tmp_path / "set", count=30, per_shard=4)
    whole = global_batches(index, 0, 60, 1, 0)
    for start in np.random.default_rng(0).choice(59, 20, replace=False).tolist():
        for ranks in (1, 4):
            assert global_batches(index, start * BATCH, 1, ranks, 0) == whole[start : start + 1]


def test_a_resume_costs_the_same_anywhere():
    """Not a timing: the order of a pass is made once, whichever pass it is, and nothing before it."""
    order = Order([100] * 10, seed=0)
    made: list[int] = []
    shuffle = order._pass.__wrapped__
    order._pass = lambda number: (made.append(number), shuffle(number))[1]
    order.items(10**12 + 5, 8)
    assert made == [10**9]


def break_sample(index: Index, sample: int) -> None:
    row = index.rows[sample]
    path = Path(index.place) / index.shards[int(row["shard"])].name
    data = bytearray(path.read_bytes())
    data[int(row["offset"]) + 30] ^= 4
    path.write_bytes(data)


def test_a_damaged_sample_is_an_error(tmp_path):
    index = write_set(tmp_path / "set")
    break_sample(index, 7)
    pictures = Pictures(index, Reader(index))
    with pytest.raises(DataError, match=r"sample 7 in .*000001\.tar is damaged: its bytes are not those"):
        pictures.__getitems__([1, 7])


def test_or_the_next_that_is_whole_takes_its_place(tmp_path):
    index = write_set(tmp_path / "set")
    for sample in (7, 8, 19):
        break_sample(index, sample)
    batch = Pictures(index, Reader(index), skip=True).__getitems__([6, 7, 19, 19 + 20, 8 + 20])
    assert batch["sample"].tolist() == [6, 9, 0, 0, 9]
    assert sorted(number for number, _, _ in batch["lost"]) == [7, 8, 8, 19, 19]
    expected = [blobs(20)[6], blobs(20)[9], blobs(20)[0], blobs(20)[0][:, ::-1], blobs(20)[9][:, ::-1]]
    assert np.array_equal(batch["image"].permute(0, 2, 3, 1).numpy(), np.stack(expected))
    assert batch["label"].tolist() == [0, 0, 0, 0, 0]


def test_if_nothing_is_whole_that_is_an_error_and_no_hang(tmp_path):
    index = write_set(tmp_path / "set", count=4)
    for sample in range(4):
        break_sample(index, sample)
    with pytest.raises(DataError, match="no sample of the data set can be read"):
        Pictures(index, Reader(index), skip=True).__getitems__([0])


def module(path: Path, **options: object) -> tuple[ImageData, list[str]]:
    data = ImageData(resolution=16, path=str(path), **options)
    data.schedule(batch_sizes=[4], tick=20, stop=20, position=lambda: 0)
    data.trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    told: list[str] = []
    data.say = data.tell = told.append
    return data, told


def play(data: ImageData) -> Iterator[torch.Tensor]:
    data.setup("fit")
    for batch in data.train_dataloader():
        yield data.on_after_batch_transfer(data.on_before_batch_transfer(batch, 0), 0)["image"]


@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_skipped_is_told_once_and_counted(tmp_path, workers):
    index = write_set(tmp_path / "set")
    break_sample(index, 7)
    data, told = module(tmp_path / "set", on_error="skip", max_lost=0.1, num_workers=workers)
    assert len(list(play(data))) == 5
    where = f"sample 7 in {tmp_path}/set/000001.tar is damaged"
    assert told == [f"{where}: its bytes are not those that were written; skipped"]
    assert data.measure() == {"data/lost": 1.0}


def test_too_many_lost_samples_stop_the_training(tmp_path):
    index = write_set(tmp_path / "set")
    for sample in (3, 9):
        break_sample(index, sample)
    data, _ = module(tmp_path / "set", on_error="skip", max_lost=0.05)
    with pytest.raises(
        DataError, match=r"2 of 20 samples in '.*' are lost \(10.0%\), more than data.max_lost=0.05 allows"
    ):
        list(play(data))


def test_shards_that_are_cut_or_missing_are_counted_at_the_start(tmp_path):
    index = write_set(tmp_path / "set")
    (tmp_path / "set" / "000002.tar").unlink()
    cut = int(index.rows[4]["offset"]) + 10
    path = tmp_path / "set" / "000000.tar"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match=rf"000000.tar has {cut} bytes; .* so 2 of its 6 samples are lost"):
        module(tmp_path / "set")[0].check()
    data, told = module(tmp_path / "set", on_error="skip", max_lost=0.5)
    assert len(list(play(data))) == 5
    assert data.measure() == {"data/lost": 8.0}
    assert len(told) == 2
    assert all(line.endswith("they are skipped (data.on_error=skip)") for line in told)
    data, _ = module(tmp_path / "set", on_error="skip")
    with pytest.raises(DataError, match="8 of 20 samples"):
        list(play(data))


def test_decoded_pictures_are_the_same(tmp_path):
    write_set(tmp_path / "set")
    plain, _ = module(tmp_path / "set", mirror=True)
    decoded, _ = module(tmp_path / "set", mirror=True, decoded=True, cache=str(tmp_path / "cache"))
    for _ in range(2):
        for one, other in zip(play(plain), play(decoded), strict=True):
            assert torch.equal(one, other)
    (path,) = (tmp_path / "cache" / "decoded").glob("*.bin")
    assert path.stat().st_size == 20 * 16 * 16 * 3
    # Made once: the second start reads the file.
    made = path.stat().st_mtime_ns
    module(tmp_path / "set", decoded=True, cache=str(tmp_path / "cache"))[0]._pictures()
    assert path.stat().st_mtime_ns == made


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_decoding_knows_what_is_damaged(tmp_path, workers):
    index = write_set(tmp_path / "set")
    break_sample(index, 7)
    with pytest.raises(DataError, match=r"sample 7 in .* is damaged"):
        open_decoded(index, tmp_path / "cache", skip=False, num_workers=workers)
    reader = open_decoded(index, tmp_path / "cache", skip=True, num_workers=workers)
    assert np.array_equal(reader.read(8), blobs(9)[8])
    with pytest.raises(DataError, match=r"sample 7 in .* is damaged"):
        reader.read(7)
    with pytest.raises(DataError, match=r"sample 7 in .* is damaged"):
        open_decoded(index, tmp_path / "cache", skip=False)
    # What is mended is read, though the file was made before.
    break_sample(index, 7)
    assert np.array_equal(open_decoded(index, tmp_path / "cache", skip=False).read(7), blobs(8)[7])
    (path,) = (tmp_path / "cache" / "decoded").glob("*.bin")
    path.write_bytes(path.read_bytes()[:-1])
    reader = open_decoded(index, tmp_path / "cache", skip=False, num_workers=1)
    assert np.array_equal(reader.read(19), blobs(20)[19])


def test_decoding_needs_room(tmp_path, monkeypatch):
    index = write_set(tmp_path / "set")
    monkeypatch.setattr("kaleidogan.data.decoded.SPARE", 2**60)
    with pytest.raises(OSError, match=r"need 15,360 bytes in .*; choose another place with data.cache"):
        open_decoded(index, tmp_path / "cache", skip=False)


VALUES = [(0, 1500), (1, 1700), (1, 1900), (0, 1500)]


def test_conditions_are_numbers_of_a_like_size(tmp_path):
    index = write_conditions(tmp_path / "set", VALUES)
    assert index.conditions is not None
    assert index.conditions.tolist() == [[0, 1500], [1, 1700], [1, 1900], [0, 1500]]
    scaled = standardized(index)
    assert scaled[:, 0].tolist() == [0, 1, 1, 0]  # labels stay as they are
    assert scaled[:, 1].mean() == pytest.approx(0, abs=1e-6)
    assert scaled[:, 1].std() == pytest.approx(1, abs=1e-6)
    data, _ = module(tmp_path / "set")
    data.condition(2)
    data.setup("fit")
    (batch, *_) = data.train_dataloader()
    found = data.on_after_batch_transfer(data.on_before_batch_transfer(batch, 0), 0)
    assert np.array_equal(found["condition"].numpy(), scaled[batch["sample"].numpy()])
    again = data.conditions(6)
    assert again is not None
    assert again.shape == (6, 2)
    assert torch.equal(again[:2], again[4:])
    with pytest.raises(
        ValueError, match=r"model.c_dim=3, but '.*' has 2 conditions: oil, year; set model.c_dim=2"
    ):
        data.condition(3)


def test_conditions_that_do_not_fit_are_refused(tmp_path):
    write_conditions(tmp_path / "set", VALUES)
    values = np.load(tmp_path / "set" / "conditions.npy")
    np.save(tmp_path / "set" / "conditions.npy", values * 2)
    with pytest.raises(DataError, match=r"conditions.npy is not the one that was written"):
        load_index(tmp_path / "set")


def test_weights_by_shard(tmp_path):
    write_set(tmp_path / "set")
    data, _ = module(tmp_path / "set", weights={"000000.tar": 3, "00000[12].tar": 1, "000003.tar": 0})
    items = data._order().items(0, 20 * 300)
    counts = np.bincount(items, minlength=20) / 300
    # 6 samples of weight 3, 12 of weight 1, none of the last: 30 shares for 20 places.
    assert counts[:6] == pytest.approx(2.0, abs=0.15)
    assert counts[6:18] == pytest.approx(2 / 3, abs=0.15)
    assert counts[18:].sum() == 0
    with pytest.raises(ValueError, match=r"data.weights names 'x.tar', which is no shard of"):
        module(tmp_path / "set", weights={"x.tar": 2})[0].check()


def test_far_shards_are_fetched_before_they_are_read(tmp_path):
    from shard_server import serve

    write_set(tmp_path / "set", count=40, per_shard=4)
    with serve(tmp_path / "set") as server:
        data, _ = module(Path(), window=2)
        data = ImageData(resolution=16, path=server.address, window=2, cache=str(tmp_path / "cache"))
        data.schedule(batch_sizes=[4], tick=40, stop=40, position=lambda: 0)
        data.trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
        near, _ = module(tmp_path / "set", window=2)
        near.schedule(batch_sizes=[4], tick=40, stop=40, position=lambda: 0)
        data.setup("fit")
        loader = data.train_dataloader()
        first = next(data._order().windows(0))
        fetched = {int(name[:6]) for name in server.asked if name.endswith(".tar")}
        assert fetched == set(first)
        batches = iter(loader)
        one = next(batches)
        # The thread goes on with the next window while the first is read.
        deadline = time.monotonic() + 10
        while len({name for name in server.asked if name.endswith(".tar")}) < 4:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        data.teardown("fit")
        near.setup("fit")
        for far, other in zip([one, *batches], near.train_dataloader(), strict=True):
            assert torch.equal(far["image"], other["image"])


def test_a_shard_that_cannot_be_had_is_told_once(tmp_path):
    from shard_server import serve

    write_set(tmp_path / "set", count=40, per_shard=4)
    with serve(tmp_path / "set") as server:
        server.faults["000003.tar"] = ["404"] * 99
        data = ImageData(
            resolution=16, path=server.address, cache=str(tmp_path / "cache"), on_error="skip", max_lost=0.2
        )
        data.schedule(batch_sizes=[4], tick=40, stop=40, position=lambda: 0)
        data.trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
        told: list[str] = []
        data.say = data.tell = told.append
        assert len(list(play(data))) == 10
        data.teardown("fit")
        assert data.measure() == {"data/lost": 4.0}
        (line,) = told
        assert "000003.tar cannot be had" in line
        assert line.endswith("its 4 samples are skipped")


def test_the_end_does_not_wait_for_what_is_on_its_way(tmp_path):
    import threading

    from kaleidogan.data.files import open_files
    from kaleidogan.data.prefetch import Prefetch
    from shard_server import serve

    write_set(tmp_path / "set", count=40, per_shard=4)
    with serve(tmp_path / "set") as server:
        files = open_files(server.address, cache=tmp_path / "cache")
        index = load_index(files)
        for shard in index.shards:
            server.faults[shard.name] = ["stall"] * 9
        prefetch = Prefetch(index, Order([4] * 10, seed=0, window=5), int)
        prefetch.start_once()
        deadline = time.monotonic() + 10
        while not any(name.endswith(".tar") for name in server.asked):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        began = time.monotonic()
        prefetch.close()
        prefetch.join(2)
        assert time.monotonic() - began < 2
        assert all(thread.daemon for thread in threading.enumerate() if thread.name.startswith("Thread-"))
        server.faults.clear()


def test_a_cache_that_is_too_small_is_said_at_the_start(tmp_path):
    from shard_server import serve

    write_set(tmp_path / "set", count=40, per_shard=4)
    with serve(tmp_path / "set") as server:
        data = ImageData(resolution=16, path=server.address, cache=str(tmp_path / "cache"), cache_gb=1e-5)
        with pytest.raises(ValueError, match=r"data.cache_gb=1e-05 is too little: 2 windows of 16 shards"):
            data.check()
