"""One training from start to end: build the parts, play, and say where everything is."""

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytorch_lightning as pl
import yaml

from kaleidogan import __version__
from kaleidogan.config import build
from kaleidogan.data.datamodule import ImageData
from kaleidogan.settings import Channels, Count, Positive, Resolution, Seed
from kaleidogan.training import checkpoint as checkpoints
from kaleidogan.training import ranks, runs, signals, slurm, transfer
from kaleidogan.training.assemble import make_model, own_choices
from kaleidogan.training.callbacks.adaptive import steering
from kaleidogan.training.callbacks.growth import Growth
from kaleidogan.training.callbacks.keep import Keep
from kaleidogan.training.callbacks.preempt import Preempt, Stopped
from kaleidogan.training.gan import GAN
from kaleidogan.training.launch import launch
from kaleidogan.training.logging import CSV, Wandb
from kaleidogan.training.place import Place, find_place
from kaleidogan.training.resume import check_changes, notes
from kaleidogan.training.trainer import count_devices


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
    place = find_place()
    machine = config["trainer"]
    if place.size == 1 and (count := count_devices(machine["accelerator"], machine["devices"])) > 1:
        task = {"settings": config, "choices": choices, "overrides": overrides}
        return launch(count, to_plain(task))  # type: ignore[no-any-return]
    ranks.join(place, machine["timeout"])
    if init_from is not None and not (name and runs.Run(name).last.exists()):
        runs.find_checkpoints(Path(init_from))  # refused before a folder is made for the run
    grower: Growth | None = build(growth) if growth else None
    gan, config = make_model(config, pictures, grower)
    run = open_run(name, runs.name_prefix(data, choices), overrides, place)
    with run.lock():
        found = find_start(run, resume, place)
        if found is not None:
            check_changes(found[1], to_plain(config), allow_changes)
            if (seen := images_seen(found[1])) >= config["kimg"] * 1000:
                more = f"to go on, set kimg={2 * seen / 1000:g}"
                run.say(f"run '{run.folder}' has reached its {seen / 1000:g} kimg; {more}")
                return last_metric(run, found[1], optimized_metric)
        if place.is_first:
            about = f"# kaleidogan {__version__}, commit {runs.git_commit()}\n"
            run.record_start(about + yaml.safe_dump(to_plain(config), sort_keys=False), overrides)
        if chosen := own_choices(model, config["model"], grower):
            run.say(f"the model's own choice here: {', '.join(chosen)}")
        with ending(run):
            lightning = play(run, gan, config, pictures, found, allow_changes, choices, grower)
        summarize(run, lightning)
        ranks.leave()
    return metric(lightning, optimized_metric) if place.is_first else None


@contextmanager
def ending(run: runs.Run) -> Iterator[None]:
    """Say how a training ended, and leave with the status that tells it, if it did not come to its end."""
    run.record_status("running")
    try:
        yield
    except Stopped as stopped:
        run.record_status("stopped", str(stopped))
        if slurm.job_id() is None:
            signals.forget()  # else they are listened to until the end: requeuing a job sends it another
        run.say(f"stopped by {stopped} and saved. To go on: {sys.argv[0]} name={run.name}")
        ranks.gather(None)  # a rank that left before the first has saved would be taken for a failure
        sys.exit(128 + stopped.number)
    except Exception as error:
        signals.forget()
        with suppress(OSError):  # the disk may be full
            first = str(error).partition("\n")[0]
            others = "another rank ended, log.txt may say why: " if ranks.is_broken(error) else ""
            run.record_status("failed", f"{others}{type(error).__name__}: {first}")
        if getattr(error, "errno", None) == errno.ENOSPC:
            raise OSError(run.full_disk()) from error
        raise
    signals.forget()
    run.record_status("finished")


def open_run(name: str | None, prefix: str, overrides: list[str], place: Place) -> runs.Run:
    """Find the run's folder, the same on all ranks; without a name the first one finds a new number."""
    if name is None:
        name = ranks.broadcast(runs.unnamed_run(prefix, overrides).name if place.is_first else None)
    return runs.Run(name, rank=place.rank)


def find_start(run: runs.Run, resume: str, place: Place) -> tuple[Path, checkpoints.Checkpoint] | None:
    """Read the checkpoint that training goes on from, the same on all ranks; None: it begins."""
    found = None
    if place.is_first:
        checkpoints.sweep(run.checkpoints)
        found = checkpoints.load_newest(run.checkpoint_to_resume(resume))
    path = ranks.broadcast(str(found[0]) if found else None)
    if found is None and path is not None:
        found = Path(path), checkpoints.load(Path(path))
    return found


def play(
    run: runs.Run,
    gan: GAN,
    config: dict[str, Any],
    pictures: ImageData,
    found: tuple[Path, checkpoints.Checkpoint] | None,
    allow_changes: tuple[str, ...],
    choices: dict[str, Any],
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
    watching = [*build(config["callbacks"] or {}).values(), *([grower] if grower else [])]
    if grower is not None:
        grower.run = run
    about = {"run": run, "config": to_plain(config), "choices": choices}
    loggers = build(config["logger"] or {}, **about).values() if run.speaks else []
    trainer: pl.Trainer = build(
        config["trainer"],
        folder=run.folder,
        callbacks=[*steering(gan, run), *watching, keep, Preempt(keep, run)],
        loggers=list(loggers),
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
    pictures.say, pictures.tell = run.say, run.tell
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
    where = f"{trainer.world_size} x {device}" if trainer.world_size > 1 else device
    run.say(f"on {where} in {trainer.precision}, data '{pictures.place}', run '{run.folder}'")
    if kept := sum(not parameter.requires_grad for parameter in gan.discriminator.parameters()):
        run.say(f"{kept} of the discriminator's tensors keep their weights (model.freeze_layers)")
    if found is not None:
        run.say(f"going on from '{found[0]}' at {images_seen(found[1]) / 1000:g} kimg")
        for note in notes(found[1], str(trainer.precision), ranks.size()):
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
