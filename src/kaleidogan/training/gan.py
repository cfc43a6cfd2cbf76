"""The game: one batch is a discriminator step, a generator step, and an update of the average."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from kaleidogan.training import ema
from kaleidogan.training.losses import Loss, Penalty, lazy_scale

Scalars = dict[str, Tensor]


class GAN(pl.LightningModule):
    """Two players and the rules. It knows nothing of levels, wavelets, styles or the metrics.

    Time is counted in images: `images_seen` is the only clock, and a Lightning epoch is one tick.

    Args:
        generator: `forward(z) -> picture`, with `latent_dim` and `image_shape`.
        discriminator: `forward(picture) -> logits [n]`.
        loss: what each player minimises.
        penalties: on the discriminator, by their log name; each is a step of its own when it is due.
        augment: applied to everything the discriminator sees.
        learning_rate: of both players' Adam.
        betas: likewise.
        d_steps: discriminator steps, each on a batch of its own, for one generator step.
        accumulate: parts into which a batch is cut to save memory; the gradients are those of the whole.
        ema_kimg: half-life of the averaged generator, in thousands of images.
        ema_rampup: the half-life is at most this share of the images seen; None: no limit.
    """

    def __init__(
        self,
        *,
        generator: nn.Module,
        discriminator: nn.Module,
        loss: Loss,
        penalties: dict[str, Penalty],
        augment: nn.Module,
        learning_rate: float,
        betas: tuple[float, float],
        d_steps: int,
        accumulate: int,
        ema_kimg: float,
        ema_rampup: float | None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.generator = generator
        self.discriminator = discriminator
        self.average = copy.deepcopy(generator).eval().requires_grad_(False)
        self.augment = augment
        self.adversarial = loss
        self.penalties = penalties
        self.learning_rate = learning_rate
        self.betas = betas
        self.d_steps = d_steps
        self.accumulate = accumulate
        self.ema_kimg = ema_kimg
        self.ema_rampup = ema_rampup
        self.images_seen = 0
        self.batches_seen = 0

    def get_extra_state(self) -> dict[str, int]:
        """The clock, for the checkpoint. Whole numbers here: a buffer would wait for the GPU each batch."""
        return {"images_seen": self.images_seen, "batches_seen": self.batches_seen}

    def set_extra_state(self, state: dict[str, int]) -> None:
        """Set the clock from a checkpoint."""
        self.images_seen = state["images_seen"]
        self.batches_seen = state["batches_seen"]

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Adam for the generator and for the discriminator, whose rates allow for its lazy penalties."""
        scale = lazy_scale(list(self.penalties.values()))
        lazy_betas = (self.betas[0] ** scale, self.betas[1] ** scale)
        return [
            torch.optim.Adam(self.generator.parameters(), self.learning_rate, self.betas, fused=True),
            torch.optim.Adam(
                self.discriminator.parameters(), self.learning_rate * scale, lazy_betas, fused=True
            ),
        ]

    def forward(self, z: Tensor) -> Tensor:
        """Pictures of the averaged generator."""
        return self.average(z)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Scalars:
        """Play one batch and return what is worth logging, detached."""
        generator_optimizer, discriminator_optimizer = self._optimizers()
        reals = batch["image"].chunk(self.accumulate)
        scalars = self.discriminator_step(reals, discriminator_optimizer)
        for name, penalty in self.penalties.items():
            if self.batches_seen % penalty.every == 0:
                scalars[name] = self.penalty_step(penalty, reals, discriminator_optimizer)
        if (self.batches_seen + 1) % self.d_steps == 0:
            scalars |= self.generator_step([len(real) for real in reals], generator_optimizer)
        self.batches_seen += 1
        self.advance_average(len(batch["image"]) * self.trainer.world_size)
        return scalars

    def _optimizers(self) -> list[Any]:
        found = self.optimizers()
        assert isinstance(found, list)
        return found

    def discriminator_step(self, reals: tuple[Tensor, ...], optimizer: Any) -> Scalars:
        """Teach the discriminator to tell reals from fakes."""
        optimizer.zero_grad()
        scalars: Scalars = {}
        for real in reals:
            fake = self.fakes(len(real))
            real_logits = self.critic(real).float()
            fake_logits = self.critic(fake).float()
            loss = self.adversarial.discriminator(real_logits, fake_logits)
            self.manual_backward(loss / len(reals))
            part = {
                "loss/discriminator": loss,
                "logit/real": real_logits.mean(),
                "logit/fake": fake_logits.mean(),
            }
            _add(scalars, part, 1 / len(reals))
        optimizer.step()
        return scalars

    def penalty_step(self, penalty: Penalty, reals: tuple[Tensor, ...], optimizer: Any) -> Tensor:
        """Take the step of a penalty that is due, weighted by how rarely it is."""
        optimizer.zero_grad()
        scalars: Scalars = {}
        # A gradient of a gradient loses too much in half precision.
        with torch.autocast(self.device.type, enabled=False):
            for real in reals:
                value = penalty(self.critic, real, partial(self.fakes, len(real)))
                self.manual_backward(value * (penalty.every / len(reals)))
                _add(scalars, {"penalty": value}, 1 / len(reals))
        optimizer.step()
        return scalars["penalty"]

    def generator_step(self, sizes: list[int], optimizer: Any) -> Scalars:
        """Teach the generator to pass its pictures off as real."""
        optimizer.zero_grad()
        scalars: Scalars = {}
        with frozen(self.discriminator):
            for size in sizes:
                logits = self.critic(self.generator(self.latents(size))).float()
                loss = self.adversarial.generator(logits)
                self.manual_backward(loss / len(sizes))
                _add(scalars, {"loss/generator": loss}, 1 / len(sizes))
        optimizer.step()
        return scalars

    def advance_average(self, images: int) -> None:
        """Count the images of this batch, and let the average follow the generator."""
        self.images_seen += images
        keep = ema.decay(images, self.ema_kimg * 1000, images_seen=self.images_seen, rampup=self.ema_rampup)
        ema.update(self.average, self.generator, keep)

    def critic(self, image: Tensor) -> Tensor:
        """The discriminator as it sees the world: through the augmentation."""
        logits: Tensor = self.discriminator(self.augment(image))
        return logits

    @torch.no_grad()
    def fakes(self, count: int) -> Tensor:
        """Pictures of the generator, for the discriminator to judge."""
        pictures: Tensor = self.generator(self.latents(count))
        return pictures

    def latents(self, count: int) -> Tensor:
        """Draw latents from N(0, 1), different on each rank."""
        return torch.randn(count, self.generator.latent_dim, device=self.device)  # type: ignore[call-overload]


def _add(total: Scalars, part: Scalars, weight: float) -> None:
    """Add a part's values to a total, both detached from the graph."""
    for name, value in part.items():
        value = value.detach() * weight
        total[name] = total[name] + value if name in total else value


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Keep a network's parameters out of the graph: their gradients would be computed and thrown away."""
    network.requires_grad_(False)
    try:
        yield
    finally:
        network.requires_grad_(True)
