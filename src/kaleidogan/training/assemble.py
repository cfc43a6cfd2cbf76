"""A training's model: built from the settings such that it fits the pictures."""

import random
from typing import Any

import numpy as np
import torch

from kaleidogan.config import TARGET, build, read_signature
from kaleidogan.data.datamodule import ImageData
from kaleidogan.training.callbacks.growth import Growth
from kaleidogan.training.gan import GAN
from kaleidogan.training.modules.parts import check_share

TRANSFER_ADA_KIMG = 100.0
"""Thousands of images in which ADA's p can go from 0 to 1 when training begins with learnt weights."""


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
    check_share(chosen["batch_size"], gan)
    if grower is not None:
        grower.attach(gan)
    if gan.generator.image_shape != (shape := pictures.image_shape):
        raise ValueError(f"the model makes pictures of {gan.generator.image_shape}, the data has {shape}")
    pictures.condition(getattr(gan.generator, "c_dim", 0))
    return gan, config


def own_choices(asked: dict[str, Any], model: dict[str, Any], grower: Growth | None) -> list[str]:
    """The numbers that a model has chosen itself; the batch of one that grows is told with its levels."""
    own = [key for key, value in model.items() if asked.get(key, value) is None and value]
    return [f"{key}={model[key]:g}" for key in own if key != "batch_size" or grower is None]


def seed_everything(seed: int) -> None:
    """Seed each random number generator of this process, the same on all ranks: the weights should agree."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
