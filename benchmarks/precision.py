"""How far gradients in bfloat16 point the way of those in float32, for each phase of a model's iteration.

    python benchmarks/precision.py                                     # at initialisation, auto at 64 px
    python benchmarks/precision.py --model progan                      # or swagan
    python benchmarks/precision.py --run runs/mine --data data/mine    # in the course of a training

Prints the cosine between the gradients of all parameters of the player that is taught, and the ratio of their
lengths. Both see the same pictures, latents, noise and augmentation. Below a cosine of 0.995 a penalty should
be computed in float32.
"""

import argparse
import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from kaleidogan.data.datamodule import ImageData
from kaleidogan.training.gan import GAN
from kaleidogan.training.modules import SWAGAN, ProGAN, StyleGAN2ADA


class Keep:
    """An optimiser that only keeps the gradients."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.gradient = torch.empty(0)

    def zero_grad(self) -> None:
        """Forget the gradients of the step before."""
        self.network.zero_grad()

    def step(self) -> None:
        """Keep the gradients."""
        found = [p.grad.flatten().double() for p in self.network.parameters() if p.grad is not None]
        self.gradient = torch.cat(found)


MODELS: dict[str, type[GAN]] = {"stylegan2_ada": StyleGAN2ADA, "swagan": SWAGAN, "progan": ProGAN}


def phases(gan: GAN, real: Tensor) -> dict[str, tuple[nn.Module, Callable[[Keep], object]]]:
    """Each phase: who learns, and the step."""
    parts = [(gan.view(real), None)]
    losses = copy.copy(gan)
    losses.penalties = {}  # else one that is due each time would join the step
    found: dict[str, tuple[nn.Module, Callable[[Keep], object]]] = {
        "G main": (gan.generator, lambda keep: losses.generator_step(parts, keep)),
        "D main": (gan.discriminator, lambda keep: losses.discriminator_step(parts, keep)),
    }
    for name, penalty in gan.penalties.items():
        found[f"D {name}"] = (gan.discriminator, partial(_penalize, gan.penalty_step, penalty, parts))
    for name, rule in gan.generator_penalties.items():
        found[f"G {name}"] = (gan.generator, partial(_penalize, gan.generator_penalty_step, rule, parts))
    return found


def _penalize(step: Callable[..., object], penalty: object, parts: object, keep: Keep) -> object:
    return step(penalty, parts, keep)


def compare(gan: GAN, real: Tensor) -> None:
    """Print a line for each phase."""
    state = {key: value.clone() for key, value in gan.state_dict().items() if isinstance(value, Tensor)}
    for name, (network, step) in phases(gan, real).items():
        gradients = []
        for half in (False, True):
            # Running means move with each pass.
            gan.load_state_dict(state, strict=False)
            torch.manual_seed(1)
            keep = Keep(network)
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                step(keep)
            gradients.append(keep.gradient)
        single, half_precision = gradients
        cosine = torch.nn.functional.cosine_similarity(single, half_precision, dim=0)
        ratio = half_precision.norm() / single.norm()
        print(f"  {name:<22} cosine {cosine.item():.5f}  length ratio {ratio.item():.4f}")


def main() -> None:
    """Print the cosines."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=MODELS, default="stylegan2_ada")
    parser.add_argument("--run", type=Path, help="a run's folder; default: initial weights")
    parser.add_argument("--data", type=str, help="the folder of its data set; default: noise")
    parser.add_argument("--batch", type=int, default=8)
    options = parser.parse_args()
    torch.manual_seed(0)
    if options.run is None:
        gan = MODELS[options.model](resolution=64)
    else:
        gan = MODELS[options.model].load_from_checkpoint(
            options.run / "checkpoints" / "last.ckpt", map_location="cpu"
        )
    gan.train()
    gan.average.eval()
    gan.manual_backward = lambda loss: loss.backward()  # type: ignore[method-assign, assignment]
    shape = gan.generator.image_shape
    assert isinstance(shape, tuple)
    if options.data:
        real = ImageData(resolution=shape[1:], channels=shape[0], path=options.data).reals(options.batch)
    else:
        real = torch.rand(options.batch, *shape) * 2 - 1
    print(f"at {gan.images_seen / 1000:g} kimg:")
    compare(gan, real)


if __name__ == "__main__":
    main()
