"""The quality of a training's pictures, through the real command."""

import pytest
import pytorch_lightning as pl
import torch
from PIL import Image

import wandb_file
from conftest import TINY, small, write_set
from kaleidogan import cli
from kaleidogan.data.datamodule import ImageData
from kaleidogan.metrics.swd import low_pass
from kaleidogan.training import checkpoint
from kaleidogan.training.callbacks.keep import random_state
from kaleidogan.training.callbacks.quality import Quality, as_saved, draw_spectra
from kaleidogan.training.modules import DCGAN
from test_resume import rows

NAMES = {"swd", "swd_16", "spectrum_gap_db", "spectrum_high_db", "flat_noise", "flat_noise_real"}
KEYS = {f"metric/{name}" for name in NAMES}
BRIEF = ("callbacks.samples.rows=1", "trainer.threads=1")


def metrics(row: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in row.items() if key.startswith("metric/")}


def test_each_tick_is_one_row_with_its_metrics(train):
    run = train(*BRIEF)
    found = rows(run)
    assert [row["images"] for row in found] == ["16", "32", "48"]
    for row in found:
        assert set(metrics(row)) == KEYS
        assert float(row["loss/generator"]) > 0
        assert float(row["metric/swd"]) == float(row["metric/swd_16"]) > 0
        assert float(row["metric/spectrum_gap_db"]) > 0
    with Image.open(run / "samples" / "spectrum.png") as plot:
        assert plot.size == (800, 500)


def test_each_level_has_its_metric(train, folder):
    write_set(folder / "set", size=64)
    (row,) = rows(train(*BRIEF, "resolution=64", "kimg=0.016"))
    assert set(metrics(row)) == KEYS | {"metric/swd_32", "metric/swd_64"}
    levels = [float(row[f"metric/swd_{side}"]) for side in (16, 32, 64)]
    assert float(row["metric/swd"]) == pytest.approx(sum(levels) / 3)


@pytest.mark.slow
def test_wandb_has_them_in_the_row_of_the_losses_also_after_a_resume(train):
    train(*BRIEF, "logger=wandb", "kimg=0.016", name="a")
    run = train(*BRIEF, "logger=wandb", name="a")
    newest = max(run.glob("wandb/offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime_ns)
    history = wandb_file.read(newest)["history"]
    ticks = [row for row in history if "metric/swd" in row]
    assert [row["progress/kimg"] for row in ticks] == [0.016, 0.032, 0.048]
    assert all(KEYS | {"loss/generator"} <= set(row) for row in ticks)
    assert any("samples/spectrum._type" in row for row in history)


@pytest.mark.parametrize("images", [16, 24])
def test_an_interruption_changes_no_row(train, images):
    whole = rows(train(*BRIEF, name="whole"))
    train(*BRIEF, f"kimg={images / 1000}", name="parts")
    # A run's last tick may be short: that row is the shorter run's own.
    parts = [row for row in rows(train(*BRIEF, name="parts")) if int(row["images"]) % 16 == 0]
    assert [metrics(row) for row in parts] == [metrics(row) for row in whole]


def test_measuring_changes_nothing_in_the_training(train, monkeypatch):
    measure, seen = Quality.measure, []

    def watched(self, trainer, gan):
        before = random_state()  # Python's own is drawn from by the tests' checks of types
        found = measure(self, trainer, gan)
        seen.append(torch.equal(before["torch"], random_state()["torch"]))
        seen.append(torch.equal(before["numpy"][0], random_state()["numpy"][0]))
        return found

    monkeypatch.setattr(Quality, "measure", watched)
    one = train(*BRIEF, name="one", model="stylegan2_ada")
    assert seen == [True] * 6
    other = train(*BRIEF, "~callbacks.quality", name="other", model="stylegan2_ada")
    assert not (other / "samples" / "spectrum.png").exists()
    assert not metrics(rows(other)[0])
    states = [checkpoint.load(run / "checkpoints" / "last.ckpt")["state_dict"] for run in (one, other)]
    for key, value in states[0].items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, states[1][key]), key


def test_one_picture_is_too_few_and_it_is_said(train, capsys):
    run = train(*BRIEF, "kimg=0.016", "callbacks.quality.pictures=1")
    assert "no metric/* is measured: callbacks.quality.pictures is 1" in capsys.readouterr().out
    assert not metrics(rows(run)[0])
    assert not (run / "samples" / "spectrum.png").exists()


def test_the_best_is_kept_by_a_metric(train):
    run = train(*BRIEF, "optimized_metric=metric/swd")
    best = checkpoint.load(run / "checkpoints" / "best.ckpt")["callbacks"]["Keep"]["best"]
    assert best == pytest.approx(min(float(row["metric/swd"]) for row in rows(run)))


@pytest.mark.parametrize("settings", [("resolution=[16,32]", "channels=4"), ("channels=1",)])
def test_other_shapes_are_measured(folder, settings):
    base = [*TINY, *small("dcgan"), "model=dcgan", "data=procedural", "data.maker.num_images=20"]
    cli.run("train", [*base, *BRIEF, "kimg=0.016", *settings, "logger=csv", "name=a"], program="train.py")
    (row,) = rows(folder / "runs" / "a")
    assert float(row["metric/swd_16"]) > 0


def test_reals_are_learnt_once_and_again_when_they_are_viewed_anew(tmp_path):
    write_set(tmp_path / "set")
    data = ImageData(resolution=16, path=str(tmp_path / "set"))
    read, counts = data.reals, []
    data.reals = lambda count: counts.append(count) or read(count)
    torch.manual_seed(0)
    gan = DCGAN(resolution=16, width=4, latent_dim=8)
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    trainer.datamodule = data
    quality = Quality()
    first = quality.measure(trainer, gan)
    assert quality.measure(trainer, gan) == first
    assert counts == [20]
    gan.view = low_pass
    assert quality.measure(trainer, gan)["metric/swd"] != first["metric/swd"]
    assert counts == [20, 20]


def test_a_new_view_is_noticed_where_the_first_picture_has_no_detail(tmp_path):
    write_set(tmp_path / "set")
    data = ImageData(resolution=16, path=str(tmp_path / "set"))
    pictures = torch.cat([torch.zeros(1, 3, 16, 16), data.reals(7)])
    data.reals = lambda count: pictures[:count]
    gan = DCGAN(resolution=16, width=4, latent_dim=8)
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    trainer.datamodule = data
    quality = Quality(pictures=8)
    before = quality.measure(trainer, gan)["metric/flat_noise_real"]
    gan.view = low_pass
    assert quality.measure(trainer, gan)["metric/flat_noise_real"] != before


def test_pictures_are_measured_as_they_would_be_saved():
    picture = torch.tensor([-1.5, -1.0, 0.003, 1 / 255, 1.2]).view(1, 1, 1, 5)
    found = (as_saved(picture, len(picture)) + 1) * 127.5
    assert found.flatten().tolist() == pytest.approx([0, 0, 128, 128, 255], abs=1e-4)


@pytest.mark.parametrize("value", [-120.0, float("nan")])
def test_spectra_of_nothing_can_be_drawn(value):
    flat = torch.full((8,), value)
    assert draw_spectra(flat, flat).shape == (500, 800, 3)
