"""ADA's augmentations, at a probability that something else adapts.

From Karras et al. 2020, "Training generative adversarial networks with limited data".
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kaleidogan.config import nearest
from kaleidogan.settings import Count, Fraction, OpenFraction, Positive
from kaleidogan.training.augment.colour import apply_colours, draw_colours
from kaleidogan.training.augment.corruption import Bands, cut_out, draw_noise, draw_square
from kaleidogan.training.augment.draws import Draws
from kaleidogan.training.augment.geometry import compose, draw_transform, draw_turn, draw_whole_shift, turn
from kaleidogan.training.augment.warp import Warp

GROUPS = ("blit", "geom", "color", "filter", "noise", "cutout")
"""Of operations, in the order in which they are applied."""
KIMG = 500.0
"""The published speed of p, in thousands of images from 0 to 1."""
PRESETS = {"bg": 2, "bgc": 3, "bgcf": 4, "bgcfn": 5, "bgcfnc": 6}
"""How many of the groups, from the first on."""


class ADA(nn.Module):
    """Applies each operation to each image with probability p, and shows the discriminator nothing else.

    While p is below about 0.8 the generator does not learn the augmentations: enough pictures pass each
    operation untouched to tell what they look like without it.

    `p` is a buffer without dimensions. Who adapts it writes into it, and the next batch is augmented so. How
    to adapt it is in `adaptive`, `target`, `interval`, `kimg` and `max_p`.

    Args:
        preset: the operations: bgc and the like, or any of blit, geom, color, filter, noise and cutout.
        p: the probability, fixed; null: adaptive, from 0 on.
        target: the mean sign of the real pictures' logits to hold; 0.6: four of five are taken for real.
        interval: batches from one adaptation of p to the next.
        kimg: thousands of images in which p can go from 0 to 1; null: 500, or 100 with init_from.
        max_p: the highest that p is adapted to; the paper sees augmentations leak above 0.8.
    """

    p: Tensor

    def __init__(
        self,
        *,
        preset: str
        | tuple[
            Literal[
                "blit", "geom", "color", "filter", "noise", "cutout", "bg", "bgc", "bgcf", "bgcfn", "bgcfnc"
            ],
            ...,
        ] = "bgc",
        p: Fraction | None = None,
        target: OpenFraction = 0.6,
        interval: Count = 4,
        kimg: Positive | None = None,
        max_p: Fraction = 0.8,
    ) -> None:
        super().__init__()
        if not 0 < target < 1:
            raise ValueError(f"target {target} is not between 0 and 1")
        self.groups = groups_of((preset,) if isinstance(preset, str) else preset)
        self.adaptive = p is None
        self.target = target
        self.interval = interval
        self.kimg = KIMG if kimg is None else kimg
        self.max_p = max_p
        self.register_buffer("p", torch.tensor(p or 0.0))
        self.warp = Warp()
        self.bands = Bands()

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Augment each image by itself; computed in float32 or better, returned in the images' own type.

        Args:
            images: in [-1, 1], gray, RGB or RGBA; the results may lie outside.
        """
        # Autocast would round the filters to bfloat16, and with them the pictures.
        with torch.autocast(images.device.type, enabled=False):
            augmented = images.to(torch.promote_types(images.dtype, torch.float32))
            draws = Draws(self.p, augmented)
            augmented = self._corrupt(self._move(augmented, draws), draws)
        return augmented.to(images.dtype)

    def _move(self, images: Tensor, draws: Draws) -> Tensor:
        height, width = images.shape[2:]
        steps = []
        if "blit" in self.groups:
            images = turn(images, *draw_turn(draws, height, width))
            steps.append(draw_whole_shift(draws, height, width))
        if "geom" in self.groups:
            steps.append(draw_transform(draws, height, width))
        return self.warp(images, compose(*steps)) if steps else images

    def _corrupt(self, images: Tensor, draws: Draws) -> Tensor:
        if "color" in self.groups:
            images = apply_colours(images, draw_colours(draws))
        if "filter" in self.groups:
            images = self.bands(images, self.bands.draw(draws))
        if "noise" in self.groups:
            images = images + draw_noise(draws, images)
        if "cutout" in self.groups:
            images = cut_out(images, draw_square(images) & draws.happens()[:, None, None, None])
        return images


def groups_of(words: tuple[str, ...]) -> tuple[str, ...]:
    """The groups of operations that some words stand for, in the order in which they are applied.

    Raises:
        ValueError: if a word is neither a group nor a preset; names the nearest that is.
    """
    found: set[str] = set()
    for word in words:
        if word not in GROUPS and word not in PRESETS:
            valid = [*GROUPS, *PRESETS]
            near = nearest(word, valid)
            hint = f"did you mean {near}?" if near else f"valid here: {', '.join(valid)}"
            raise ValueError(f"preset {word} is neither a group of augmentations nor a preset; {hint}")
        found |= {word} if word in GROUPS else set(GROUPS[: PRESETS[word]])
    if not found:
        raise ValueError("preset names no augmentation; to augment nothing, leave ADA out: augment=none")
    return tuple(group for group in GROUPS if group in found)
