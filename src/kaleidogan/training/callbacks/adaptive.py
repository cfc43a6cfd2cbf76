"""What of the augmentation changes over time: ADA's probability, and the blur that fades."""

from typing import Any

import pytorch_lightning as pl
import torch

from kaleidogan.training.augment.ada import ADA
from kaleidogan.training.augment.fade import Fade
from kaleidogan.training.augment.warp import probe
from kaleidogan.training.gan import GAN
from kaleidogan.training.runs import Run


class Adapt(pl.Callback):
    """Raises ADA's p while the discriminator overfits, and lowers it while it does not.

    From Karras et al. 2020, "Training generative adversarial networks with limited data": r_t, the mean sign
    of the logits of real pictures, goes to 1 as the discriminator learns them by heart. Every few batches p
    takes a step up or down, such that it could go from 0 to 1 within `kimg`.

    Args:
        ada: the augmentation.
        run: says so when p is as high as it may go.
    """

    def __init__(self, ada: ADA, run: Run) -> None:
        self._ada = ada
        self._run = run
        self._signs = torch.zeros(())
        self._images = 0
        self._r_t = torch.zeros(())
        self._has_warned = False

    def state_dict(self) -> dict[str, Any]:
        """The signs since p last moved."""
        return {
            "signs": self._signs,
            "images": self._images,
            "r_t": self._r_t,
            "has_warned": self._has_warned,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the signs since p last moved."""
        self._signs, self._images = state_dict["signs"], state_dict["images"]
        self._r_t, self._has_warned = state_dict["r_t"], state_dict["has_warned"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Refuse a PyTorch that cannot differentiate the warp twice on this device."""
        probe(pl_module.device)
        self._signs, self._r_t = self._signs.to(pl_module.device), self._r_t.to(pl_module.device)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the signs, and move p when it is time; nothing here waits for the GPU."""
        assert isinstance(pl_module, GAN)
        images = len(batch["image"]) * trainer.world_size
        self._signs = self._signs + outputs["logit/sign"] * images
        self._images += images
        if pl_module.batches_seen % self._ada.interval == 0:
            self._r_t = self._signs / self._images
            if self._ada.adaptive:
                step = self._images / (self._ada.kimg * 1000)
                self._ada.p += (self._r_t - self._ada.target).sign().nan_to_num() * step
                self._ada.p.clamp_(0.0, self._ada.max_p)
            self._signs, self._images = torch.zeros_like(self._signs), 0
        outputs["augment/p"], outputs["augment/r_t"] = self._ada.p.clone(), self._r_t

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say aloud once that p can rise no more."""
        # Compared as tensors: in single precision 0.7 is less than Python's.
        if self._ada.adaptive and not self._has_warned and bool(self._ada.p >= self._ada.max_p):
            self._has_warned = True
            self._run.say(
                f"warning: augment.p has reached {self._ada.max_p:g} and the discriminator still overfits "
                f"(r_t {float(self._r_t):.2f}). Beyond, augmentations show in the samples: pictures turned, "
                "cut out or in odd colours. More pictures, data.mirror=true or a higher model.r1_gamma help"
            )


class FadeBlur(pl.Callback):
    """Keeps the blur where the images seen say that it should be."""

    def __init__(self, fade: Fade) -> None:
        self._fade = fade

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Set the deviation for this batch."""
        assert isinstance(pl_module, GAN)
        self._fade.sigma = self._fade.at(pl_module.images_seen)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Hand the deviation on to be logged."""
        outputs["augment/blur_sigma"] = torch.tensor(self._fade.sigma)


def steering(gan: GAN, run: Run) -> list[pl.Callback]:
    """The callbacks that a model's augmentation needs."""
    found: list[pl.Callback] = []
    for part in gan.augment.modules():
        if isinstance(part, ADA):
            found.append(Adapt(part, run))
        elif isinstance(part, Fade):
            found.append(FadeBlur(part))
    return found
