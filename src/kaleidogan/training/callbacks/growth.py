"""Growth: when a network goes on to larger pictures, and what changes then."""

from typing import Any, Protocol, runtime_checkable

import pytorch_lightning as pl

from kaleidogan.data.datamodule import ImageData
from kaleidogan.models.growing import Stage
from kaleidogan.settings import Count, Fraction, GrowFrom, Positive
from kaleidogan.training.callbacks.quality import FEWEST, Quality
from kaleidogan.training.callbacks.record import Record
from kaleidogan.training.gan import GAN
from kaleidogan.training.losses import lazy_scale
from kaleidogan.training.modules.parts import check_share
from kaleidogan.training.runs import Run

Tick = dict[str, float]
"""What is known at the end of one: `kimg` since the level was stable, and what was measured."""


@runtime_checkable
class Rule(Protocol):
    """When to go on."""

    measures: bool
    """Whether it looks at more than the clock."""
    longest_kimg: float
    """How long a level may be stable, in thousands of images."""

    def reason(self, ticks: list[Tick]) -> str | None:
        """Why to go on now, from all ticks since the level was stable; None: stay."""
        ...


class Schedule:
    """Go on after a fixed number of images, as published.

    Args:
        stabilise_kimg: thousands of images at a level, once it is faded in.
    """

    measures = False

    def __init__(self, *, stabilise_kimg: Positive = 600.0) -> None:
        self.stabilise_kimg = self.longest_kimg = stabilise_kimg

    def reason(self, ticks: list[Tick]) -> str | None:
        """When the time is up."""
        if ticks[-1]["kimg"] >= self.stabilise_kimg:
            return f"{self.stabilise_kimg:g} kimg are up (growth.rule.stabilise_kimg)"
        return None


class Plateau:
    """Go on when the pictures of a level get no better: the sliced Wasserstein distance falls no more.

    The patience is half as long where the discriminator has won: while a real's logit is above a fake's in
    nearly all pairs, more training at this level only teaches it the pictures by heart.

    Args:
        patience_kimg: thousands of images without progress after which to go on.
        tolerance: by what share of itself the distance has to fall to count as progress.
        won: of pairs of a real and a fake, how many more the discriminator has to tell apart than it mistakes
            to count as having won; 1: it makes no mistake.
        min_kimg: stay at least so many thousands of images, once the level is faded in.
        max_kimg: stay at most as many.
    """

    measures = True

    def __init__(
        self,
        *,
        patience_kimg: Positive = 100.0,
        tolerance: Fraction = 0.03,
        won: Fraction = 0.95,
        min_kimg: Positive = 200.0,
        max_kimg: Positive = 1200.0,
    ) -> None:
        if min_kimg > max_kimg:
            raise ValueError(f"growth.rule.min_kimg={min_kimg:g} is above max_kimg={max_kimg:g}")
        self.patience_kimg = patience_kimg
        self.tolerance = tolerance
        self.won = won
        self.min_kimg = min_kimg
        self.max_kimg = self.longest_kimg = max_kimg

    def reason(self, ticks: list[Tick]) -> str | None:
        """When the distance has not fallen for long enough, or the time is up."""
        now = ticks[-1]
        if now["kimg"] < self.min_kimg:
            return None
        separation = sum(tick["separation"] for tick in ticks[-3:]) / len(ticks[-3:])
        has_won = separation >= self.won
        patience = self.patience_kimg / 2 if has_won else self.patience_kimg
        best, progress = ticks[0]["swd"], ticks[0]["kimg"]
        for tick in ticks:
            if tick["swd"] < best * (1 - self.tolerance):
                best, progress = tick["swd"], tick["kimg"]
        if now["kimg"] - progress >= patience:
            judge = (
                f"the discriminator {'has won' if has_won else 'still errs'} (separation {separation:.2f})"
            )
            return (
                f"no progress for {now['kimg'] - progress:g} kimg: sliced Wasserstein distance "
                f"{now['swd']:.2f}, and {best * (1 - self.tolerance):.2f} would be progress; {judge}"
            )
        if now["kimg"] >= self.max_kimg:
            return (
                f"{self.max_kimg:g} kimg are up (growth.rule.max_kimg); the last progress was "
                f"{now['kimg'] - progress:g} kimg ago, at a distance of {best:.2f}"
            )
        return None


class Growth(pl.Callback):
    """Fades levels in, goes on when its rule says so, and gives each level its batch and learning rate.

    From Karras et al. 2018, "Progressive growing of GANs for improved quality, stability, and variation". A
    level is stable, then the next is faded in, then that is stable. Levels begin at ticks only, since there
    the loader asks for the batch. The optimisers forget their moments, the averaged generator goes on.

    Args:
        rule: when to go on.
        start: the shorter side of the pictures to begin with; base: the smallest that the model can make.
        fade_kimg: thousands of images in which a level is faded in.
        batch_sizes: images in a batch at each level, from the first; null: the model's published numbers.
        learning_rates: at each level, likewise.
    """

    def __init__(
        self,
        *,
        rule: Rule,
        start: GrowFrom = "base",
        fade_kimg: Positive = 600.0,
        batch_sizes: tuple[Count, ...] | None = None,
        learning_rates: tuple[Positive, ...] | None = None,
    ) -> None:
        self.start = start
        self._rule = rule
        self._fade = fade_kimg * 1000
        self._batch_sizes = batch_sizes
        self._rates = learning_rates
        self._began = 0.0
        self._ticks: list[Tick] = []
        self._quality: Quality | None = None
        self._from = 0
        self.run: Run
        """Whose log is told; set by `play`."""

    def attach(self, gan: GAN) -> None:
        """Take the networks to grow.

        Raises:
            ValueError: if there are not as many batch sizes or rates as levels, or a batch cannot be cut.
        """
        self._stages: list[Stage] = [net.stage for net in (gan.generator, gan.discriminator, gan.average)]  # type: ignore[misc]
        self.stage = self._stages[0]
        sides = [min(size) for size in self.stage.sizes]
        published = getattr(gan, "level_batches", [gan.hparams["batch_size"]] * len(sides))
        self.batch_sizes = list(self._batch_sizes or published)
        self.rates = list(self._rates or getattr(gan, "level_rates", [gan.learning_rate] * len(sides)))
        for key, values in (("batch_sizes", self.batch_sizes), ("learning_rates", self.rates)):
            if len(values) != len(sides):
                raise ValueError(f"growth.{key}={values}: there are {len(sides)} levels, {sides}")
        for batch in self.batch_sizes:
            check_share(batch, gan, "a level's batch of ")

    def level(self) -> int:
        """The level that training is at."""
        return self.stage.level

    def state_dict(self) -> dict[str, Any]:
        """Where in its phase a level is; the level and its alpha are in the networks."""
        return {"began": self._began, "ticks": self._ticks}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on within a phase."""
        self._began, self._ticks = state_dict["began"], state_dict["ticks"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say how many pictures are large enough for each level, and set its learning rate."""
        assert isinstance(pl_module, GAN)
        if self._rule.measures:
            self._find_quality(trainer)
        self._set_rates(trainer, pl_module)
        if trainer.is_global_zero and pl_module.images_seen == 0:
            self._announce(trainer.datamodule)  # type: ignore[attr-defined]

    def _announce(self, data: ImageData) -> None:
        """Say what each level has, and whether the last may come too late."""
        rows = data.index.rows
        for (height, width), batch in zip(self.stage.sizes, self.batch_sizes, strict=True):
            count = int(((rows["height"] >= height) & (rows["width"] >= width)).sum())
            self.run.say(
                f"level {height}x{width}: batches of {batch}; "
                f"{count} of {len(rows)} source pictures are as large"
            )
        latest = (len(self.stage.sizes) - 1) * (self._rule.longest_kimg + self._fade / 1000)
        if latest >= data.stop / 1000:
            self.run.say(
                f"note: the last level may be faded in as late as at {latest:g} kimg, and training ends at "
                f"kimg={data.stop / 1000:g}"
            )

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say so if training ended on the way."""
        if trainer.is_global_zero and (self.stage.is_fading or self.stage.level + 1 < len(self.stage.sizes)):
            shown = f", of which {self.stage.alpha:.0%} shows" if self.stage.is_fading else ""
            self.run.say(
                f"note: training ended at the level of {self._side()} px{shown}; a higher kimg goes on"
            )

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin a tick."""
        assert isinstance(pl_module, GAN)
        self._from = pl_module.images_seen

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Set how much of a new level shows in this batch."""
        assert isinstance(pl_module, GAN)
        if self.stage.is_fading:
            alpha = min(1.0, (pl_module.images_seen - self._began) / self._fade)
            self._set(self.stage.level, alpha)
            if alpha == 1.0:
                self._began += self._fade
                self._note(pl_module, f"level {self._side()} px is faded in")

    def measure(self, trainer: pl.Trainer, gan: GAN) -> dict[str, float]:
        """Hand the level on to `Record`, which comes before this callback and writes the tick's row."""
        return {"growth/side": float(self._side()), "growth/alpha": self.stage.alpha}

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Go on to the next level if it is time."""
        assert isinstance(pl_module, GAN)
        if self.stage.is_fading or self.stage.level + 1 == len(self.stage.sizes):
            return
        tick = trainer.datamodule.tick  # type: ignore[attr-defined]
        if pl_module.images_seen < (self._from // tick + 1) * tick:
            return  # a training that ends within a tick, and may go on, has not come to its end
        reason = trainer.strategy.broadcast(self._reason(trainer, pl_module))
        if reason is None:
            return
        before = self._side()
        self._began, self._ticks = float(pl_module.images_seen), []
        self._set(self.stage.level + 1, 0.0)
        for optimizer in trainer.optimizers:
            optimizer.state.clear()
        self._set_rates(trainer, pl_module)
        batch = self.batch_sizes[self.stage.level]
        self._note(pl_module, f"from {before} to {self._side()} px with batches of {batch}: {reason}")

    def _find_quality(self, trainer: pl.Trainer) -> None:
        callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
        self._quality = next((callback for callback in callbacks if isinstance(callback, Quality)), None)
        has_record = any(isinstance(callback, Record) for callback in callbacks)
        if self._quality is None or not has_record or self._quality.count(trainer) < FEWEST:
            raise ValueError(
                f"growth=auto looks at what callbacks.record and callbacks.quality tell of {FEWEST} pictures "
                "or more: set callbacks=default, or use growth=schedule"
            )

    def _reason(self, trainer: pl.Trainer, gan: GAN) -> str | None:
        """Why to go on now; on the first rank, which alone measures."""
        if not trainer.is_global_zero:
            return None
        self._ticks.append(self._tick(trainer, gan))
        return self._rule.reason(self._ticks)

    def _tick(self, trainer: pl.Trainer, gan: GAN) -> Tick:
        """What the rule looks at."""
        kimg = {"kimg": (gan.images_seen - self._began) / 1000}
        if not self._rule.measures:
            return kimg
        assert self._quality is not None
        separation = float(trainer.callback_metrics["logit/separation"])
        return {**kimg, "swd": self._quality.found["metric/swd"], "separation": separation}

    def _side(self) -> int:
        return min(self.stage.size)

    def _set(self, level: int, alpha: float) -> None:
        for stage in self._stages:
            stage.level, stage.alpha = level, alpha

    def _set_rates(self, trainer: pl.Trainer, gan: GAN) -> None:
        """Give both players the level's learning rate."""
        for optimizer, periods in zip(trainer.optimizers, gan.periods, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = self.rates[self.stage.level] * lazy_scale(periods)

    def _note(self, gan: GAN, words: str) -> None:
        self.run.say(f"growth at {gan.images_seen / 1000:g} kimg: {words}")
