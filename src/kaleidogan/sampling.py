"""Checkpoint -> generator -> pictures, the same for a seed whatever is made beside it."""

import importlib
import inspect
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor, nn

from kaleidogan import __version__
from kaleidogan.settings import size_of
from kaleidogan.training import checkpoint as checkpoints

Pixels = NDArray[np.uint8]
GENERATORS = "kaleidogan.models."
"""A checkpoint names its generator's class; nothing outside of this package is imported for one."""
CHUNK = 16
"""Pictures made at once. A constant, and the last chunk is filled up: convolutions of another batch size
differ in the last bits, and a seed's picture should not depend on which seeds are made beside it."""


@dataclass(frozen=True)
class Trained:
    """A trained generator: the averaged network in eval mode, and where it is from.

    Attributes:
        generator: the network.
        path: of the checkpoint.
        digest: the checkpoint's.
        images_seen: where it stands.
        options: what the model was made with.
        conditions: what its conditions stand for: `names` of classes, or of numbers with the `mean` and
            `scale` by which those were standardised; empty if it takes none or does not say.
    """

    generator: nn.Module
    path: Path
    digest: str
    images_seen: int
    options: dict[str, Any]
    conditions: dict[str, Any] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        """Where the generator's parameters are."""
        return next(self.generator.parameters()).device


def load_generator(paths: list[Path], device: str | torch.device = "cpu") -> Trained:
    """Build the averaged generator of the first of some checkpoints that can be read.

    Raises:
        CheckpointError: if none can be read, or one names a generator that is not ours.
    """
    found = checkpoints.load_newest(paths)
    if found is None:
        raise FileNotFoundError(f"there is no checkpoint at '{paths[0]}'")
    path, checkpoint = found
    options = checkpoint["hyper_parameters"]
    generator = build_generator(checkpoint["generator"], options)
    weights = {
        key.removeprefix("average."): value
        for key, value in checkpoint["state_dict"].items()
        if key.startswith("average.")
    }
    generator.load_state_dict(weights)
    return Trained(
        generator=generator.to(device).eval().requires_grad_(False),
        path=path,
        digest=checkpoints.digest(path),
        images_seen=checkpoint["state_dict"]["_extra_state"]["images_seen"],
        options=options,
        conditions=checkpoint.get("conditions", {}),
    )


def build_generator(name: str, options: dict[str, Any]) -> nn.Module:
    """Build a generator by its class's full name, from those of a model's options that it takes.

    Raises:
        CheckpointError: if the name is not one of our networks.
    """
    module, _, cls = name.rpartition(".")
    if not name.startswith(GENERATORS) or not cls.isidentifier():
        raise checkpoints.CheckpointError(f"the checkpoint's generator '{name}' is not one of {GENERATORS}*")
    network = getattr(importlib.import_module(module), cls)
    wanted = {key: options[key] for key in inspect.signature(network).parameters if key in options}
    wanted["resolution"] = size_of(wanted["resolution"])
    built: nn.Module = network(**wanted)
    return built


def latents(seeds: Sequence[int], dim: int) -> Float[Tensor, "n z"]:
    """One latent a seed from N(0, 1), by the old NumPy generator that the field's seeds refer to."""
    drawn = [np.random.RandomState(seed).standard_normal(dim) for seed in seeds]
    return torch.from_numpy(np.stack(drawn).astype(np.float32))


def conditions(
    trained: Trained,
    seeds: Sequence[int],
    label: int | str | None = None,
    condition: dict[str, float] | None = None,
) -> Float[Tensor, "n c_dim"] | None:
    """The condition of each seed's picture.

    Args:
        trained: the generator.
        seeds: one picture each.
        label: of a model with classes: one for all, by its number or name; None: each seed's in turn.
        condition: of a model that was trained on numbers: those that are given, by name; the others are
            what they were on average, or 0 where they are labels.

    Returns:
        None where the generator takes none.

    Raises:
        ValueError: if there is no such class or number; says which there are.
    """
    c_dim = getattr(trained.generator, "c_dim", 0)
    names = trained.conditions.get("names", [])
    if "mean" in trained.conditions:
        if label is not None:
            raise ValueError(f"label={label}: the model was trained on numbers; set condition.{names[0]}=1")
        return _numbers(trained.conditions, condition or {}).expand(len(seeds), -1)
    if condition:
        raise ValueError(f"condition={condition}: the model was trained with {_classes(c_dim, names)}")
    number = names.index(label) if label in names else label
    if number is not None and not (isinstance(number, int) and 0 <= number < c_dim):
        raise ValueError(f"label={label}: the model was trained with {_classes(c_dim, names)}")
    if c_dim == 0:
        return None
    return torch.eye(c_dim)[[seed % c_dim if number is None else number for seed in seeds]]


def _classes(c_dim: int, names: Sequence[str]) -> str:
    if not c_dim:
        return "no classes"
    listed = f": {', '.join(names[:10])}{', ...' * (len(names) > 10)}" if names else ""
    return f"classes 0 to {c_dim - 1}{listed}"


def _numbers(about: dict[str, Any], given: dict[str, float]) -> Float[Tensor, "1 c_dim"]:
    for name in given:
        if name not in about["names"]:
            raise ValueError(f"condition: there is no '{name}'; there are {', '.join(about['names'])}")
    scaled = [
        (given.get(name, mean) - mean) / scale
        for name, mean, scale in zip(about["names"], about["mean"], about["scale"], strict=True)
    ]
    return torch.tensor([scaled])


@torch.no_grad()
def synthesize(
    generator: nn.Module,
    z: Float[Tensor, "n z"],
    c: Float[Tensor, "n c_dim"] | None = None,
    *,
    psi: float = 1.0,
    cutoff: int | None = None,
    noise: str = "const",
) -> Iterator[Float[Tensor, "c h w"]]:
    """Make the picture of each latent, about in [-1, 1] on the CPU, in chunks of one constant size.

    Args:
        generator: in eval mode.
        z: latents.
        c: conditions, where the generator takes them.
        psi: truncation.
        cutoff: layers that are truncated, from the first; None: all.
        noise: const: the same for all; random: another in each call; none.
    """
    device = next(generator.parameters()).device
    for start in range(0, len(z), CHUNK):
        # The last chunk is filled up with its last row.
        rows = torch.arange(start, start + CHUNK).clamp_(max=len(z) - 1)
        chunk = z[rows].to(device), None if c is None else c[rows].to(device)
        w = generator.mapping(*chunk, psi=psi, cutoff=cutoff)  # type: ignore[operator]
        pictures = generator.synthesis(w, noise=noise)  # type: ignore[operator]
        yield from pictures[: len(z) - start].float().cpu()


def to_uint8(image: Float[Tensor, "c h w"]) -> Pixels:
    """Map -1 ... 1 to 0 ... 255 and the channels to the end: [h, w, c]."""
    return ((image + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy()


def grid(pictures: Sequence[Pixels], columns: int | None = None, gap: int = 2) -> Pixels:
    """Lay pictures of one size out in rows, with white lines between.

    Args:
        pictures: [h, w, c] each.
        columns: in a row; None: as many as make the grid about square.
        gap: width of the lines, in pixels.
    """
    height, width, channels = pictures[0].shape
    columns = columns or int(np.ceil(np.sqrt(len(pictures) * height / width)))
    rows = -(-len(pictures) // columns)
    sheet = np.full(
        (rows * (height + gap) + gap, columns * (width + gap) + gap, channels), 255, dtype=np.uint8
    )
    for number, picture in enumerate(pictures):
        top = gap + number // columns * (height + gap)
        left = gap + number % columns * (width + gap)
        sheet[top : top + height, left : left + width] = picture
    return sheet


def save_png(path: Path, pixels: Pixels, about: dict[str, Any] | None = None) -> None:
    """Write a PNG whose text chunk says how it was made: the software, and each entry of `about`."""
    info = PngInfo()
    info.add_text("Software", f"kaleidogan {__version__}")
    for key, value in (about or {}).items():
        info.add_text(key, value if isinstance(value, str) else json.dumps(value))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(path, pnginfo=info)
