"""NaN and Inf, norms and memory."""

from pathlib import Path

import pytest
import torch

from kaleidogan.training import checkpoint
from kaleidogan.training.gan import GAN
from test_resume import rows


def break_at(monkeypatch, images: int, value: float) -> None:
    """Poison the generator's weights once as many images were seen."""
    play = GAN.training_step

    def training_step(self, batch, batch_idx):
        if self.images_seen >= images:
            with torch.no_grad():
                next(self.generator.parameters()).fill_(value)
        return play(self, batch, batch_idx)

    monkeypatch.setattr(GAN, "training_step", training_step)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_training_stops_when_nan_stays_and_keeps_the_last_good_checkpoint(train, monkeypatch, capsys, value):
    break_at(monkeypatch, 24, value)
    with pytest.raises(SystemExit):
        train("kimg=0.4", "callbacks.health.patience=5")
    said = capsys.readouterr().err
    assert "the last 5 batches, up to 0.064 kimg, had NaN or Inf" in said
    assert "Lower model.learning_rate" in said
    saved = checkpoint.load(Path("runs/tiny/checkpoints/last.ckpt"))
    assert saved["state_dict"]["_extra_state"]["images_seen"] == 16
    assert all(v.isfinite().all() for v in saved["state_dict"].values() if isinstance(v, torch.Tensor))


def test_norms_and_memory_are_logged(train):
    run = train("model.r1_gamma=1")
    for row in rows(run):
        assert float(row["gradient/generator"]) > 0
        assert float(row["gradient/discriminator"]) > 0
        assert float(row["health/nonfinite"]) == 0
    assert "memory/process_gb" in (run / "metrics.csv").read_text()
