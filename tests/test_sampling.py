"""Latents, pictures and grids."""

import numpy as np
import pytest
import torch
from PIL import Image

from kaleidogan.sampling import build_generator, grid, latents, save_png, to_uint8
from kaleidogan.training.checkpoint import CheckpointError


def test_a_seeds_latent_is_the_fields():
    drawn = latents([0, 7], 4)
    expected = np.random.RandomState(7).randn(1, 4)
    torch.testing.assert_close(drawn[1:].double(), torch.from_numpy(expected), atol=1e-7, rtol=0)


def test_pixels_are_rounded_and_cut():
    image = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0])[None, None]
    assert to_uint8(image)[0, :, 0].tolist() == [0, 0, 128, 255, 255]


def test_a_grid_has_each_picture_in_its_place():
    pictures = [np.full((2, 3, 3), value, np.uint8) for value in (10, 20, 30)]
    sheet = grid(pictures, columns=2, gap=1)
    assert sheet.shape == (7, 9, 3)
    assert (sheet[1:3, 1:4] == 10).all()
    assert (sheet[1:3, 5:8] == 20).all()
    assert (sheet[4:6, 1:4] == 30).all()
    assert (sheet[4:6, 5:8] == 255).all()


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_png_says_how_it_was_made(tmp_path, channels):
    save_png(tmp_path / "a.png", np.zeros((2, 2, channels), np.uint8), {"seed": 7, "settings": {"psi": 0.5}})
    picture = Image.open(tmp_path / "a.png")
    assert picture.text["seed"] == "7"
    assert picture.text["settings"] == '{"psi": 0.5}'
    assert picture.text["Software"].startswith("kaleidogan")


@pytest.mark.parametrize("name", ["os.system", "kaleidogan.models.dcgan.os.system", "kaleidogan.cli.run"])
def test_a_checkpoint_cannot_name_another_class(name):
    with pytest.raises((CheckpointError, ImportError)):
        build_generator(name, {"resolution": 16})
