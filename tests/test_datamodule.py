"""Batches from shards."""

from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from conftest import blobs, write_set
from kaleidogan.data.datamodule import ImageData
from kaleidogan.data.loading import Pictures, to_float
from kaleidogan.data.procedural import Gallery
from kaleidogan.data.reader import Reader


def module(path, **options) -> ImageData:
    data = ImageData(resolution=16, path=str(path), **options)
    data.schedule(batch_sizes=[4], tick=8, stop=16, position=lambda: 0)
    data.trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    return data


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_do_not_depend_on_the_workers(tmp_path, workers):
    write_set(tmp_path / "set")
    data = module(tmp_path / "set", num_workers=workers)
    data.setup("fit")
    batches = list(data.train_dataloader())
    assert [batch["image"].shape for batch in batches] == [(4, 3, 16, 16)] * 2
    again = module(tmp_path / "set")
    again.setup("fit")
    for one, other in zip(batches, again.train_dataloader(), strict=True):
        assert torch.equal(one["image"], other["image"])
        assert torch.equal(one["label"], other["label"])


def test_a_mirrored_item_is_its_picture_flipped(tmp_path):
    index = write_set(tmp_path / "set")
    pictures = Pictures(index, Reader(index))
    picture = torch.from_numpy(blobs(20)[3].transpose(2, 0, 1).copy())
    assert torch.equal(pictures[3]["image"], picture)
    assert torch.equal(pictures[23]["image"], picture.flip(2))
    assert pictures[23]["label"] == 0


def test_black_and_white_are_minus_one_and_one():
    image = torch.tensor([0, 255], dtype=torch.uint8)
    assert torch.equal(to_float(image), torch.tensor([-1.0, 1.0]))


def test_the_loader_draws_no_random_numbers(tmp_path):
    write_set(tmp_path / "set")
    data = module(tmp_path / "set")
    data.setup("fit")
    torch.manual_seed(0)
    before = torch.get_rng_state()
    list(data.train_dataloader())
    assert torch.equal(before, torch.get_rng_state())


def test_reals_are_the_first_pictures(tmp_path):
    write_set(tmp_path / "set")
    assert module(tmp_path / "set").reals(9).shape == (9, 3, 16, 16)
    assert module(tmp_path / "set").reals(99).shape == (20, 3, 16, 16)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            {"resolution": 32},
            r"resolution=\[32, 32\] is asked for, .* holds \[16, 16\]: set resolution=\[16,16\]",
        ),
        ({"resolution": 16, "channels": 1}, "channels=1 is asked for, .* holds 3: set channels=3"),
    ],
)
def test_another_size_than_the_shards_have_is_refused(tmp_path, options, says):
    write_set(tmp_path / "set")
    with pytest.raises(ValueError, match=says):
        _ = ImageData(path=str(tmp_path / "set"), **options).index


def test_fewer_pictures_than_a_batch_are_refused(tmp_path):
    write_set(tmp_path / "set", count=3)
    with pytest.raises(ValueError, match=r"has 3 pictures, fewer than one batch of 4: set batch_size=3"):
        module(tmp_path / "set").setup("fit")


def test_a_set_that_can_be_made_is_made_once(tmp_path):
    data = ImageData(resolution=16, maker=Gallery(num_images=5), root=str(tmp_path))
    data.prepare_data()
    written = (Path(data.place) / "index.json").stat().st_mtime_ns
    data.prepare_data()
    assert (Path(data.place) / "index.json").stat().st_mtime_ns == written
    assert len(data.index) == 5
    assert np.isin(data.index.rows["label"], range(9)).all()
