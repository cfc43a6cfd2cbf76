"""Keeping: a checkpoint at every tick, continuing from one, and stopping when all images were shown."""

import random
import shutil
from importlib.metadata import version
from typing import Any, Literal

import numpy as np
import pytorch_lightning as pl
import torch

from kaleidogan.config import nearest
from kaleidogan.models.growing import Stage
from kaleidogan.training import checkpoint as checkpoints
from kaleidogan.training import ranks, resume
from kaleidogan.training.callbacks.health import is_finite
from kaleidogan.training.gan import GAN
from kaleidogan.training.logging import CheckpointLogger
from kaleidogan.training.runs import Run, git_commit

STEERED = ("augment.", "generator_penalties.")
"""What of a model's state comes and goes with settings that may be allowed to change."""


class Keep(pl.Callback):
    """Writes `last.ckpt` at every tick, moves the one before to `previous.ckpt`, and restores from one.

    Args:
        run: whose folder the checkpoints go to.
        config: the resolved configuration, for the record.
        every_kimg: keep one for good whenever as many thousands of images were passed; None: none.
        metric: keep the best by this scalar as `best.ckpt`; None: none.
        direction: whether the least or the most of it is best.
        resumed: the checkpoint to continue from.
        allow_changes: settings that may differ from the resumed checkpoint's.
    """

    def __init__(
        self,
        *,
        run: Run,
        config: dict[str, Any],
        every_kimg: float | None = None,
        metric: str | None = None,
        direction: Literal["minimize", "maximize"] = "minimize",
        resumed: checkpoints.Checkpoint | None = None,
        allow_changes: tuple[str, ...] = (),
    ) -> None:
        self._run = run
        self._config = config
        self._every = every_kimg
        self._metric = metric
        self._sign = 1 if direction == "minimize" else -1
        self._resumed = resumed
        self._allowed = allow_changes
        self._kept = 0
        self._best: float | None = None
        self._level = 0

    def state_dict(self) -> dict[str, Any]:
        """The best value so far, and a growing network's level, at which it was found."""
        return {"best": self._best, "level": self._level}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best value so far."""
        self._best, self._level = state_dict["best"], state_dict.get("level", 0)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Load the networks, the average and the clock, before the loader asks where training stands."""
        assert isinstance(pl_module, GAN)
        if trainer.is_global_zero:
            self._announce_disk_use(pl_module)
        if self._resumed is not None:
            resume.check_data(self._resumed, fingerprint(trainer), self._allowed)
            self._load(pl_module, self._resumed["state_dict"])
            for callback in trainer.callbacks:  # type: ignore[attr-defined]
                state = self._resumed["callbacks"].get(type(callback).__name__)
                if state is not None:
                    callback.load_state_dict(state)

    def _load(self, gan: GAN, state: dict[str, Any]) -> None:
        """Load the networks whole; of the augmentation and the penalties, what is there and there was.

        Raises:
            ValueError: if the networks are not the checkpoint's.
        """
        try:
            found = gan.load_state_dict(state, strict=False)
        except RuntimeError as error:  # other shapes
            raise ValueError(f"the checkpoint does not fit this model: {error}") from error
        networks = [
            key for key in (*found.missing_keys, *found.unexpected_keys) if not key.startswith(STEERED)
        ]
        if networks:
            raise ValueError(f"the checkpoint does not fit this model: {', '.join(networks[:5])} ...")
        for word, keys in (("begins anew", found.missing_keys), ("is left behind", found.unexpected_keys)):
            for key in keys:
                self._run.say(f"note: {key} {word}, since settings were allowed to change")

    def _announce_disk_use(self, gan: GAN) -> None:
        """Say what the checkpoints will take; a full disk is better known at the start."""
        generator, discriminator = (
            sum(p.nbytes for p in net.parameters()) for net in (gan.generator, gan.discriminator)
        )
        # Adam holds two more of each, and the average is another generator.
        each = 4 * generator + 3 * discriminator
        count = 3 + (self._metric is not None)
        if self._every:
            count += int(self._config["kimg"] // self._every)
        free = shutil.disk_usage(self._run.folder).free
        self._run.say(f"checkpoints: up to {count} of {each / 1e6:.0f} MB; {free / 1e9:.1f} GB are free")
        if free < 2 * each:
            raise OSError(
                f"the disk is too full for two checkpoints of {each:,} bytes in '{self._run.folder}': "
                f"{free:,} bytes are free"
            )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Tell the loggers what is trained; load the optimisers, and last the random numbers' place."""
        assert isinstance(pl_module, GAN)
        about = {"git_commit": git_commit(), "data_fingerprint": fingerprint(trainer)}
        for logger in trainer.loggers:
            logger.log_hyperparams({**self._config, **about})
        self._kept = self._number(pl_module.images_seen)
        if self._resumed is None:
            self._seed_noise(trainer)
            return
        states = self._resumed["optimizers"]
        for optimizer, state in zip(trainer.optimizers, states, strict=True):
            wanted = [{key: group[key] for key in ("lr", "betas")} for group in optimizer.param_groups]
            optimizer.load_state_dict(state)
            for group, rates in zip(optimizer.param_groups, wanted, strict=True):
                group.update(rates)  # as the settings say, which may have been allowed to change
        if len(states := self._resumed["random"]) == trainer.world_size:
            set_random_state(states[trainer.global_rank])
        else:
            self._seed_noise(trainer, pl_module.images_seen)
        self._resumed = None

    def _seed_noise(self, trainer: pl.Trainer, *images: int) -> None:
        """Begin another stream than the one that the weights were drawn from, and another on each rank."""
        mixed = np.random.SeedSequence([self._config["seed"], trainer.global_rank, *images])
        torch.manual_seed(int(mixed.generate_state(1)[0]))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save, and stop when all images were shown."""
        assert isinstance(pl_module, GAN)
        asked = self._metric if trainer.is_global_zero else None  # the first rank alone measures all
        if asked is not None and asked not in trainer.callback_metrics:
            near = nearest(asked, list(trainer.callback_metrics))
            hint = f"; did you mean {near}?" if near else ""
            raise ValueError(f"optimized_metric={asked} is not logged{hint}")
        self.save(trainer, pl_module)
        if pl_module.images_seen >= trainer.datamodule.stop:  # type: ignore[attr-defined]
            trainer.should_stop = True

    def save(self, trainer: pl.Trainer, gan: GAN) -> None:
        """Write the checkpoints that are due now; weights that are no numbers are not worth keeping.

        All ranks come here, and the first writes.

        Raises:
            RuntimeError: if the ranks' weights have come to differ.
        """
        states = gather_states(gan)
        if states is None or not trainer.is_global_zero:
            return
        is_best = self._is_best(trainer, gan)
        content = collect(trainer, gan, self._run, self._config, states)
        checkpoints.save(self._run.last, content, previous=self._run.previous)
        written = {self._run.last: ["latest"]}
        if (number := self._number(gan.images_seen)) > self._kept:
            self._kept = number
            name = f"kimg-{gan.images_seen / 1000:010.3f}.ckpt"
            checkpoints.save(self._run.checkpoints / name, content)
            written[self._run.checkpoints / name] = []
        if is_best:
            checkpoints.save(self._run.checkpoints / "best.ckpt", content)
            written[self._run.checkpoints / "best.ckpt"] = ["best"]
        for logger in trainer.loggers:
            if isinstance(logger, CheckpointLogger):
                for path, aliases in written.items():
                    logger.log_checkpoint(path, [*aliases, f"kimg-{gan.images_seen / 1000:g}"])

    def _is_best(self, trainer: pl.Trainer, gan: GAN) -> bool:
        if self._metric is None or self._metric not in trainer.callback_metrics:
            return False  # a run that is stopped within its first tick has none yet
        stage = getattr(gan.generator, "stage", None)
        if isinstance(stage, Stage) and stage.level != self._level:
            # Values of another size do not compare, and this one was found before the change.
            self._level, self._best = stage.level, None
            return False
        value = float(trainer.callback_metrics[self._metric])
        if self._best is not None and self._sign * value >= self._sign * self._best:
            return False
        self._best = value
        return True

    def _number(self, images: int) -> int:
        return int(images // (self._every * 1000)) if self._every else 0


def gather_states(gan: GAN) -> list[dict[str, Any]] | None:
    """Where each rank's random number generators stand; None if some rank's weights are no numbers.

    Raises:
        RuntimeError: if the ranks' weights, which have seen the same gradients, differ nevertheless.
    """
    if ranks.size() == 1:
        return [random_state()] if is_finite(gan) else None
    found = ranks.gather((is_finite(gan), checksum(gan), random_state()))
    if not all(finite for finite, _, _ in found):
        return None
    if len({weights for _, weights, _ in found}) > 1:
        raise RuntimeError(
            "the ranks' weights have come to differ: this is a fault of the machine or of this software; the "
            "last checkpoint is good"
        )
    return [state for _, _, state in found]


def checksum(gan: GAN) -> int:
    """The sum of all weights' bits, as whole numbers: the same on any device."""
    as_number = {4: torch.int32, 8: torch.int64}
    bits = (parameter.detach().view(as_number[parameter.itemsize]) for parameter in gan.parameters())
    return sum(int(part.sum(dtype=torch.int64)) for part in bits)


def collect(
    trainer: pl.Trainer, gan: GAN, run: Run, config: dict[str, Any], states: list[dict[str, Any]]
) -> checkpoints.Checkpoint:
    """Gather everything that steers the next step, as tensors and plain values."""
    generator = type(gan.generator)
    callbacks = {type(callback).__name__: callback.state_dict() for callback in trainer.callbacks}  # type: ignore[attr-defined]
    return {
        "pytorch-lightning_version": version("pytorch_lightning"),
        "model": f"{type(gan).__module__}.{type(gan).__qualname__}",
        "generator": f"{generator.__module__}.{generator.__qualname__}",
        "hyper_parameters": dict(gan.hparams),
        "state_dict": gan.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in trainer.optimizers],
        "callbacks": {name: state for name, state in callbacks.items() if state},
        "random": states,
        "threads": torch.get_num_threads(),
        "precision": str(trainer.precision),
        "data": fingerprint(trainer),
        "conditions": trainer.datamodule.describe(),  # type: ignore[attr-defined]
        "wandb_id": run.id,
        "git_commit": git_commit(),
        "config": config,
    }


def fingerprint(trainer: pl.Trainer) -> str:
    """The data set's."""
    return str(trainer.datamodule.index.fingerprint)  # type: ignore[attr-defined]


def random_state() -> dict[str, Any]:
    """Where this process's random number generators stand, as tensors and plain values."""
    python_version, python, gauss = random.getstate()
    _, numpy, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": [python_version, list(python), gauss],
        "numpy": [torch.from_numpy(np.asarray(numpy).astype(np.int64)), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Put this process's random number generators where they stood."""
    python_version, python, gauss = state["python"]
    random.setstate((python_version, tuple(python), gauss))
    numpy, position, has_gauss, cached = state["numpy"]
    np.random.set_state(("MT19937", numpy.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
