"""One training from start to end: build the parts, play, and say where everything is."""

import errno
import random
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytorch_lightning as pl
import torch
import yaml

from kaleidogan import __version__
from kaleidogan.config import TARGET, build, read_signature
from kaleidogan.data.datamodule import ImageData
from kaleidogan.settings import Channels, Count, Positive, Resolution, Seed
from kaleidogan.training import checkpoint as checkpoints
from kaleidogan.training import runs, transfer
from kaleidogan.training.callbacks.adaptive import steering
from kaleidogan.training.callbacks.growth import Growth
from kaleidogan.training.callbacks.keep import Keep
from kaleidogan.training.callbacks.preempt import Preempt, Stopped
from kaleidogan.training.gan import GAN
from kaleidogan.training.logging import CSV, Wandb
from kaleidogan.training.resume import check_changes, notes

TRANSFER_ADA_KIMG = 100.0
"""Thousands of images in which ADA's p can go from 0 to 1 when training begins with learnt weights."""


def train(
    *,
    name: str | None,
    seed: Seed,
    resolution: Resolution,
    channels: Channels,
    batch_size: Count | None,
    kimg: Positive | None,
    tick_kimg: Positive,
    checkpoint_kimg: Positive | None,
    accumulate: Count,
    resume: str,
    optimized_metric: str | None,
    init_from: str | None,
    optimized_direction: Literal["minimize", "maximize"] = "minimize",
    allow_changes: tuple[str, ...] = (),
    compile: bool = False,
    model: dict[str, Any],
    data: dict[str, Any],
    trainer: dict[str, Any],
    augment: dict[str, Any] | None = None,
    growth: dict[str, Any] | None = None,
    logger: dict[str, Any] | None = None,
    callbacks: dict[str, Any] | None = None,
    debug: bool = False,
    config: dict[str, Any],
    choices: dict[str, Any],
    overrides: list[str],
) -> float | None:
    """Train a GAN on pictures, or go on with a run.

    Args:
        name: of the run and its folder, runs/NAME; the same name goes on with it. null: a new number.
        seed: of the weights, the latents and the data's order.
        resolution: of the pictures: one number, or [height,width].
        channels: 1 gray, 3 RGB, 4 RGBA.
        batch_size: images in a batch, over all GPUs; null: the model's published number.
        kimg: length of the training, in thousands of images; null: the model's published number.
        tick_kimg: thousands of images from one log, sample and checkpoint to the next.
        checkpoint_kimg: keep a checkpoint for good every so many thousand images; null: only the newest two.
        accumulate: parts into which a batch is cut to save memory.
        resume: auto: go on with the run of this name; never: refuse to; or a checkpoint or run to start from.
        init_from: a run or checkpoint whose weights to begin with, as far as they fit; null: random ones.
        optimized_metric: what a sweep optimises and best.ckpt is kept by, e.g. loss/generator; null: nothing.
        optimized_direction: minimize or maximize it.
        allow_changes: settings that may differ from those of the checkpoint that training goes on from.
        compile: compile the passes without penalties; for CUDA, where it saves time.
        model: who plays.
        data: what the pictures are.
        trainer: on which machine.
        augment: what the discriminator sees the pictures through.
        growth: when the networks go on to larger pictures; null: they have the pictures' size at once.
        logger: who records.
        callbacks: who watches.
        debug: show where an error comes from.
        config: all of this, checked, for the record.
        choices: the options that were chosen for each group.
        overrides: what the user typed.

    Returns:
        The metric that a sweep optimises, if one is named.
    """
    pictures = build(data)
    pictures.check()
    if init_from is not None and not (name and runs.Run(name).last.exists()):
        runs.find_checkpoints(Path(init_from))  # refused before a folder is made for the run
    grower: Growth | None = build(growth) if growth else None
    gan, config = make_model(config, pictures, grower)
    run = runs.Run(name) if name is not None else runs.new_run(runs.name_prefix(data, choices))
    with run.lock():
        checkpoints.sweep(run.checkpoints)
        found = checkpoints.load_newest(run.checkpoint_to_resume(resume))
        if found is not None:
            check_changes(found[1], to_plain(config), allow_changes)
            if (seen := images_seen(found[1])) >= config["kimg"] * 1000:
                more = f"to go on, set kimg={2 * seen / 1000:g}"
                run.say(f"run '{run.folder}' has reached its {seen / 1000:g} kimg; {more}")
                return last_metric(run, found[1], optimized_metric)
        about = f"# kaleidogan {__version__}, commit {runs.git_commit()}\n"
        run.record_start(about + yaml.safe_dump(to_plain(config), sort_keys=False), overrides)
        if chosen := own_choices(model, config["model"], grower):
            run.say(f"the model's own choice here: {', '.join(chosen)}")
        run.record_status("running")
        try:
            lightning = play(run, gan, config, pictures, found, allow_changes, grower)
        except Stopped as stopped:
            run.record_status("stopped", str(stopped))
            run.say(f"stopped by {stopped} and saved. To go on: {sys.argv[0]} name={run.name}")
            sys.exit(128 + stopped.number)
        except Exception as error:
            with suppress(OSError):  # the disk may be full
                run.record_status("failed", f"{type(error).__name__}: {error}")
            if getattr(error, "errno", None) == errno.ENOSPC:
                raise OSError(run.full_disk()) from error
            raise
        run.record_status("finished")
        summarize(run, lightning)
    return metric(lightning, optimized_metric)


def own_choices(asked: dict[str, Any], model: dict[str, Any], grower: Growth | None) -> list[str]:
    """The numbers that a model has chosen itself; the batch of one that grows is told with its levels."""
    own = [key for key, value in model.items() if asked.get(key, value) is None and value]
    return [f"{key}={model[key]:g}" for key in own if key != "batch_size" or grower is None]


def make_model(
    config: dict[str, Any], pictures: ImageData, grower: Growth | None = None
) -> tuple[GAN, dict[str, Any]]:
    """Build the model, and fill in the numbers that it has chosen itself.

    Raises:
        ValueError: if the model does not fit the pictures, or the batch cannot be cut as asked.
    """
    augment = config["model"].get("augment") or {}
    if config["init_from"] is not None and "kimg" in augment and augment["kimg"] is None:
        # A network that has learnt elsewhere overfits sooner (Karras et al. 2020): let p rise faster.
        augment["kimg"] = TRANSFER_ADA_KIMG
    if config["init_from"] is not None:
        # The copied average is worth more than what the half-life's ramp would make of it at once.
        config["model"]["ema_rampup"] = None
        if config["resume"] not in ("auto", "never"):
            raise ValueError(
                "resume=PATH goes on with a training, init_from=PATH begins one: set one of them"
            )
    elif config["model"].get("freeze_layers") and config["resume"] in ("auto", "never"):
        raise ValueError("model.freeze_layers keeps weights that have learnt: set init_from=RUN, too")
    if grower is not None:
        if "grow_from" not in read_signature(config["model"][TARGET]).parameters:
            name = config["model"][TARGET].rpartition(".")[2]
            raise ValueError(f"{name} does not grow: set growth=none, or model=dcgan or model=progan")
        if config["model"].get("grow_from") not in (None, grower.start):
            raise ValueError("model.grow_from is set by growth.start: leave it out")
        config["model"]["grow_from"] = grower.start
    elif config["model"].get("grow_from") is not None:
        raise ValueError("model.grow_from is set by growth.start: set growth=auto or growth=schedule")
    seed_everything(config["seed"])
    gan: GAN = build(config["model"])
    chosen = {key: gan.hparams[key] for key in config["model"] if key in gan.hparams}
    config = {
        **config,
        "model": {**config["model"], **chosen},
        **{key: chosen[key] for key in ("batch_size", "kimg")},
    }
    if chosen["batch_size"] % chosen["accumulate"]:
        raise ValueError(
            f"accumulate={chosen['accumulate']} does not divide batch_size={chosen['batch_size']} evenly"
        )
    if grower is not None:
        grower.attach(gan)
    if gan.generator.image_shape != (shape := pictures.image_shape):
        raise ValueError(f"the model makes pictures of {gan.generator.image_shape}, the data has {shape}")
    pictures.condition(getattr(gan.generator, "c_dim", 0))
    return gan, config


def play(
    run: runs.Run,
    gan: GAN,
    config: dict[str, Any],
    pictures: ImageData,
    found: tuple[Path, checkpoints.Checkpoint] | None,
    allow_changes: tuple[str, ...],
    grower: Growth | None = None,
) -> pl.Trainer:
    """Build what steers, watches and records, and train."""
    if found is None and config["init_from"] is not None:
        transfer.begin_with(gan, Path(config["init_from"]), run)
    keep = Keep(
        run=run,
        config=to_plain(config),
        every_kimg=config["checkpoint_kimg"],
        metric=config["optimized_metric"],
        direction=config["optimized_direction"],
        resumed=found[1] if found else None,
        allow_changes=allow_changes,
    )
    watching = list(build(config["callbacks"] or {}).values())
    if grower is not None:
        grower.run = run
        watching.append(grower)
    trainer: pl.Trainer = build(
        config["trainer"],
        folder=run.folder,
        callbacks=[*steering(gan, run), *watching, keep, Preempt(keep)],
        loggers=list(build(config["logger"] or {}, run=run).values()),
    )
    if config["compile"]:
        compile_passes(gan, trainer, grower)
    pictures.schedule(
        batch_sizes=grower.batch_sizes if grower else [config["batch_size"]],
        level=grower.level if grower else int,
        tick=max(1, round(config["tick_kimg"] * 1000)),
        stop=max(1, round(config["kimg"] * 1000)),
        position=lambda: gan.images_seen,
    )
    pictures.tell = run.say
    announce(run, gan, pictures, trainer, found)
    trainer.fit(gan, datamodule=pictures)
    return trainer


def compile_passes(gan: GAN, trainer: pl.Trainer, grower: Growth | None) -> None:
    """Compile the passes without penalties, where that helps.

    Raises:
        ValueError: on another device than a GPU, or for a network that grows.
    """
    if grower is not None:
        raise ValueError("compile=true would compile anew in each batch of a fade: set growth=none")
    if trainer.strategy.root_device.type != "cuda":
        raise ValueError("compile=true needs CUDA: a processor gains nothing by it (measured)")
    gan.compile_passes()


def seed_everything(seed: int) -> None:
    """Seed each random number generator of this process, the same on all ranks: the weights should agree."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def to_plain(value: Any) -> Any:
    """Turn tuples to lists, as YAML and a checkpoint hold them."""
    if isinstance(value, dict):
        return {key: to_plain(entry) for key, entry in value.items()}
    return [to_plain(entry) for entry in value] if isinstance(value, tuple | list) else value


def announce(
    run: runs.Run,
    gan: GAN,
    pictures: ImageData,
    trainer: pl.Trainer,
    found: tuple[Path, checkpoints.Checkpoint] | None,
) -> None:
    """Say on one screen what is about to be trained, on what, and where it goes."""
    if not trainer.is_global_zero:
        return
    sizes = [sum(p.numel() for p in net.parameters()) / 1e6 for net in (gan.generator, gan.discriminator)]
    shape = "x".join(str(side) for side in gan.generator.image_shape[1:])  # type: ignore[union-attr, index]
    device = trainer.strategy.root_device.type
    run.say(
        f"{type(gan).__name__} {shape}: generator {sizes[0]:.2f} M, discriminator {sizes[1]:.2f} M parameters"
    )
    run.say(f"on {device} in {trainer.precision}, data '{pictures.place}', run '{run.folder}'")
    if kept := sum(not parameter.requires_grad for parameter in gan.discriminator.parameters()):
        run.say(f"{kept} of the discriminator's tensors keep their weights (model.freeze_layers)")
    if found is not None:
        run.say(f"going on from '{found[0]}' at {images_seen(found[1]) / 1000:g} kimg")
        for note in notes(found[1], str(trainer.precision)):
            run.say(f"note: {note}")


def images_seen(checkpoint: checkpoints.Checkpoint) -> int:
    """Where a checkpoint stands."""
    return int(checkpoint["state_dict"]["_extra_state"]["images_seen"])


def summarize(run: runs.Run, trainer: pl.Trainer) -> None:
    """Say where the pictures, the checkpoint and the W&B run are, and how to go on."""
    if not trainer.is_global_zero:
        return
    records = [logger.address for logger in trainer.loggers if isinstance(logger, Wandb)]
    pictures = run.samples / "reals-and-samples.png"
    lines = {
        "pictures": pictures if pictures.exists() else None,
        "checkpoint": run.last if run.last.exists() else None,
        "W&B": records[0] if records else None,
        "sample": f"{sys.argv[0].replace('train', 'generate')} checkpoint={run.folder} seeds=0-35",
    }
    for key, value in lines.items():
        if value is not None:
            run.say(f"{key:<11}{value}")


def metric(trainer: pl.Trainer, name: str | None) -> float | None:
    """The last value of a logged scalar, for a sweep; None if none is named."""
    return float(trainer.callback_metrics[name]) if name is not None else None


def last_metric(run: runs.Run, checkpoint: checkpoints.Checkpoint, name: str | None) -> float | None:
    """The value that `metric` gave when a run reached its length: a sweep that is repeated wants it again.

    Raises:
        ValueError: if it was not recorded.
    """
    if name is None:
        return None
    rows = CSV(run=run).rows()
    if rows and rows[-1].get(name):
        return float(np.float32(rows[-1][name]))  # as Lightning keeps it
    best = checkpoint["callbacks"].get("Keep", {}).get("best")
    if best is not None and checkpoint["config"].get("optimized_metric") == name:
        return float(best)
    raise ValueError(f"optimized_metric={name} is not in '{run.folder}/metrics.csv'; train on with more kimg")
