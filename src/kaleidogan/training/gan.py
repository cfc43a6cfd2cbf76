"""The game: one batch is a discriminator step, a generator step, and an update of the average."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from kaleidogan.training import ema, ranks
from kaleidogan.training.losses import GeneratorPenalty, Loss, Penalty, lazy_scale, widened

Scalars = dict[str, Tensor]
RUNNING = (*ema.STATISTICS, "w_avg")
"""The buffers that are means over all pictures seen."""
Part = tuple[Tensor, Tensor | None]
"""Real pictures and their conditions, where there are any."""


def _as_it_is(image: Tensor) -> Tensor:
    return image


class GAN(pl.LightningModule):
    """Two players and the rules. It knows nothing of levels, wavelets, styles or the metrics.

    Time is counted in images: `images_seen` is the only clock, and a Lightning epoch is one tick.

    Args:
        generator: `forward(z, c) -> picture`, with `latent_dim` and `image_shape`.
        discriminator: `forward(picture, c) -> logits [n]`.
        loss: what each player minimises.
        penalties: on the discriminator, by their log name; one that is due now and then is a step of its own,
            one that is due each time joins the discriminator's step.
        generator_penalties: on the generator, likewise; modules, since they may have a state.
        half_penalties: penalties may be computed in half precision, where the networks are.
        augment: applied to everything the discriminator sees.
        learning_rate: of both players' Adam.
        betas: likewise.
        d_steps: discriminator steps, each on a batch of its own, for one generator step.
        accumulate: parts into which a batch is cut to save memory. The gradients are those of the whole, but
            for what looks at several pictures at once: batch norm, the minibatch deviation and the running
            mean of path lengths see a part at a time.
        ema_kimg: half-life of the averaged generator, in thousands of images.
        ema_rampup: the half-life is at most this share of the images seen; None: no limit.
        view: what becomes of the reals first: a growing network shrinks them to its present size.
    """

    def __init__(
        self,
        *,
        generator: nn.Module,
        discriminator: nn.Module,
        loss: Loss,
        penalties: dict[str, Penalty],
        generator_penalties: dict[str, nn.Module] | None = None,
        half_penalties: bool = False,
        augment: nn.Module,
        learning_rate: float,
        betas: tuple[float, float],
        d_steps: int,
        accumulate: int,
        ema_kimg: float,
        ema_rampup: float | None,
        view: Callable[[Tensor], Tensor] = _as_it_is,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.generator = generator
        self.discriminator = discriminator
        self.average = copy.deepcopy(generator).eval().requires_grad_(False)
        self.augment = augment
        self.adversarial = loss
        self.penalties = penalties
        self.generator_penalties = nn.ModuleDict(generator_penalties or {})
        self.half_penalties = half_penalties
        self.learning_rate = learning_rate
        self.betas = betas
        self.d_steps = d_steps
        self.accumulate = accumulate
        self.ema_kimg = ema_kimg
        self.ema_rampup = ema_rampup
        self.view = view
        self.images_seen = 0
        self.batches_seen = 0
        # In a tuple, since a network that is registered twice would be saved twice.
        self._passes = (generator, discriminator)

    def compile_passes(self, backend: str = "inductor") -> None:
        """Compile the passes that are differentiated once.

        The penalties run the networks as they are: PyTorch does not differentiate compiled code twice.
        """
        self._passes = tuple(torch.compile(network, backend=backend) for network in self._passes)  # type: ignore[assignment]

    def get_extra_state(self) -> dict[str, int]:
        """The clock, for the checkpoint. Whole numbers here: a buffer would wait for the GPU each batch."""
        return {"images_seen": self.images_seen, "batches_seen": self.batches_seen}

    def set_extra_state(self, state: dict[str, int]) -> None:
        """Set the clock from a checkpoint."""
        self.images_seen = state["images_seen"]
        self.batches_seen = state["batches_seen"]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Let `load_from_checkpoint` leave out the augmentation, which is no hyper-parameter."""
        if not self.augment.state_dict():
            state = checkpoint["state_dict"]
            checkpoint["state_dict"] = {k: v for k, v in state.items() if not k.startswith("augment.")}

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Adam for the generator and for the discriminator, whose rates allow for their lazy penalties."""
        networks = (self.generator, self.discriminator)
        return [self._adam(net, lazy_scale(due)) for net, due in zip(networks, self.periods, strict=True)]

    @property
    def periods(self) -> tuple[list[int], list[int]]:
        """How often the generator's and the discriminator's penalties are due."""
        on_generator = [penalty.every for penalty in self._on_generator.values()]
        return on_generator, [penalty.every for penalty in self.penalties.values()]

    def _adam(self, network: nn.Module, scale: float) -> torch.optim.Optimizer:
        learnt = [parameter for parameter in network.parameters() if parameter.requires_grad]
        betas = (self.betas[0] ** scale, self.betas[1] ** scale)
        return torch.optim.Adam(learnt, self.learning_rate * scale, betas, fused=True)

    @property
    def _on_generator(self) -> dict[str, GeneratorPenalty]:
        return dict(self.generator_penalties.items())  # type: ignore[arg-type]

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """Pictures of the averaged generator."""
        return self.average(z, c)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Scalars:
        """Play one batch and return what is worth logging, detached."""
        generator_optimizer, discriminator_optimizer = self._optimizers()
        parts = self.split(batch)
        scalars = self.discriminator_step(parts, discriminator_optimizer)
        for name, penalty in self.penalties.items():
            if penalty.every > 1 and self.batches_seen % penalty.every == 0:
                scalars[name] = self.penalty_step(penalty, parts, discriminator_optimizer)
        plays, is_last = divmod(self.batches_seen + 1, self.d_steps)
        if is_last == 0:
            scalars |= self.generator_step(parts, generator_optimizer)
            for name, rule in self._on_generator.items():
                if rule.every > 1 and (plays - 1) % rule.every == 0:
                    scalars[name] = self.generator_penalty_step(rule, parts, generator_optimizer)
        for name, state in self.generator_penalties.items():
            if name in scalars:
                for figure, value in state.named_buffers():  # a penalty's state is its running figures
                    scalars[f"{name}_{figure}"] = value.clone()
        self.batches_seen += 1
        ranks.average([*scalars.values(), *self._running_figures()])
        self.advance_average(len(batch["image"]) * self.trainer.world_size)
        return scalars

    def _running_figures(self) -> list[Tensor]:
        """What the networks count along as they see pictures; each rank sees others."""
        named = [*self.generator.named_buffers(), *self.discriminator.named_buffers()]
        return [figure for name, figure in named if name.endswith(RUNNING)]

    def split(self, batch: dict[str, Tensor]) -> list[Part]:
        """Cut a batch into the parts that are shown at once."""
        images = self.view(batch["image"]).chunk(self.accumulate)
        conditions: Any = [None] * len(images)
        if "condition" in batch:
            conditions = batch["condition"].chunk(self.accumulate)
        return list(zip(images, conditions, strict=True))

    def _optimizers(self) -> list[Any]:
        found = self.optimizers()
        assert isinstance(found, list)
        return found

    def discriminator_step(self, parts: list[Part], optimizer: Any) -> Scalars:
        """Teach the discriminator to tell reals from fakes."""
        optimizer.zero_grad()
        scalars: Scalars = {}
        for real, c in parts:
            fake = self.fakes(len(real), c)
            real_logits, fake_logits = self._judge(real, c), self._judge(fake, c)
            loss = self.adversarial.discriminator(real_logits, fake_logits)
            self.differentiate(loss / len(parts))
            undecided = self.adversarial.undecided(real_logits, fake_logits)
            part = {
                "loss/discriminator": loss,
                "logit/real": real_logits.mean(),
                "logit/fake": fake_logits.mean(),
                "logit/sign": (real_logits - undecided).sign().mean(),
                # Of all pairs, how many more are told apart than mistaken: wherever the logits' zero is.
                "logit/separation": (real_logits[:, None] - fake_logits).sign().mean(),
            }
            for name, penalty in self.penalties.items():
                if penalty.every == 1:
                    part[name] = self.penalize(penalty, (real, c), partial(_as_it_is, fake), 1 / len(parts))
            _add(scalars, part, 1 / len(parts))
        self._take(optimizer)
        return scalars

    def penalty_step(self, penalty: Penalty, parts: list[Part], optimizer: Any) -> Tensor:
        """Take the step of a discriminator's penalty that is due, weighted by how rarely it is."""
        optimizer.zero_grad()
        scalars: Scalars = {}
        for real, c in parts:
            make_fakes = partial(self.fakes, len(real), c)
            value = self.penalize(penalty, (real, c), make_fakes, penalty.every / len(parts))
            _add(scalars, {"penalty": value}, 1 / len(parts))
        self._take(optimizer)
        return scalars["penalty"]

    def penalize(
        self, penalty: Penalty, part: Part, make_fakes: Callable[[], Tensor], weight: float
    ) -> Tensor:
        """Add the gradients of a discriminator's penalty on a part of the batch; returns its value."""
        real, c = part
        with self._penalty_precision():
            value = penalty(partial(self.critic, c=c), real, make_fakes)
            self.differentiate(value * weight)
        return value

    def generator_step(self, parts: list[Part], optimizer: Any) -> Scalars:
        """Teach the generator to pass its pictures off as real."""
        optimizer.zero_grad()
        scalars: Scalars = {}
        with frozen(self.discriminator):
            for real, c in parts:
                fake = self._passes[0](self.latents(len(real)), c)
                loss = self.adversarial.generator(self._judge(fake, c))
                self.differentiate(loss / len(parts))
                part = {"loss/generator": loss}
                for name, rule in self._on_generator.items():
                    if rule.every == 1:
                        part[name] = self.penalize_generator(rule, (real, c), 1 / len(parts))
                _add(scalars, part, 1 / len(parts))
        self._take(optimizer)
        return scalars

    def generator_penalty_step(self, penalty: GeneratorPenalty, parts: list[Part], optimizer: Any) -> Tensor:
        """Take the step of a generator's penalty that is due, weighted by how rarely it is."""
        optimizer.zero_grad()
        scalars: Scalars = {}
        for part in parts:
            value = self.penalize_generator(penalty, part, penalty.every / len(parts))
            _add(scalars, {"penalty": value}, 1 / len(parts))
        self._take(optimizer)
        return scalars["penalty"]

    def penalize_generator(self, penalty: GeneratorPenalty, part: Part, weight: float) -> Tensor:
        """Add the gradients of a generator's penalty on a part of the batch; returns its value."""
        real, c = part
        with self._penalty_precision():
            value = penalty(self.generator, self.latents(len(real)), c)
            self.differentiate(value * weight)
        return value

    def differentiate(self, loss: Tensor) -> None:
        """Add a loss's gradients to the parameters', each computed in the type that its forward pass had."""
        with torch.autocast(self.device.type, enabled=False):
            self.manual_backward(loss)

    def _take(self, optimizer: Any) -> None:
        """Step with the mean of all ranks' gradients: which parameters have one is the same on each."""
        learnt = (parameter for group in optimizer.param_groups for parameter in group["params"])
        ranks.average([parameter.grad for parameter in learnt if parameter.grad is not None])
        optimizer.step()
        # Autocast keeps the weights that it has converted, which have just changed.
        torch.clear_autocast_cache()

    @contextmanager
    def _penalty_precision(self) -> Iterator[None]:
        if self.half_penalties:
            yield
        else:
            # A gradient of a gradient loses too much in half precision, unless it was measured not to.
            with torch.autocast(self.device.type, enabled=False):
                yield

    def advance_average(self, images: int) -> None:
        """Count the images of this batch, and let the average follow the generator."""
        self.images_seen += images
        keep = ema.decay(images, self.ema_kimg * 1000, images_seen=self.images_seen, rampup=self.ema_rampup)
        ema.update(self.average, self.generator, keep)

    def _judge(self, image: Tensor, c: Tensor | None) -> Tensor:
        return widened(self._passes[1](self.augment(image), c))

    def critic(self, image: Tensor, c: Tensor | None = None) -> Tensor:
        """The discriminator as it sees the world: through the augmentation; for the penalties."""
        logits: Tensor = self.discriminator(self.augment(image), c)
        return logits

    @torch.no_grad()
    def fakes(self, count: int, c: Tensor | None = None) -> Tensor:
        """Pictures of the generator, for the discriminator to judge."""
        pictures: Tensor = self._passes[0](self.latents(count), c)
        return pictures

    def latents(self, count: int) -> Tensor:
        """Draw latents from N(0, 1), different on each rank, whose random numbers are."""
        return torch.randn(count, self.generator.latent_dim, device=self.device)  # type: ignore[call-overload]


def _add(total: Scalars, part: Scalars, weight: float) -> None:
    """Add a part's values to a total, both detached from the graph."""
    for name, value in part.items():
        value = value.detach() * weight
        total[name] = total[name] + value if name in total else value


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Keep a network's parameters out of the graph: their gradients would be computed and thrown away."""
    learnt = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for parameter in learnt:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learnt:
            parameter.requires_grad_(True)
