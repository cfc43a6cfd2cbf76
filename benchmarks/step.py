"""A training step's economies, and what the loop around it costs.

    python benchmarks/step.py                    # the published DCGAN at 64 px, batch 64
    python benchmarks/step.py --width 24 --batch 16 --norm none
    python benchmarks/step.py --model progan --batch 32    # the published ProGAN's last level, likewise

Prints milliseconds of one core for each image. The variants take turns within one process, and the medians
are compared, since a shared machine's speed drifts.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from kaleidogan.models.growing import Stage
from kaleidogan.training import ema
from kaleidogan.training.gan import GAN
from kaleidogan.training.modules import DCGAN, ProGAN


def make(options: argparse.Namespace, layout: torch.memory_format) -> GAN:
    """A model with its optimisers at hand, outside of a trainer."""
    torch.manual_seed(0)
    gan: GAN
    if options.model == "progan":
        gan = ProGAN(resolution=64, grow_from="base")
        for network in (gan.generator, gan.discriminator, gan.average):
            stage: Stage = network.stage  # type: ignore[assignment]
            stage.level = len(stage.sizes) - 1
            stage.alpha = 0.5 if options.fade else 1.0
    else:
        gan = DCGAN(width=options.width, discriminator_norm=options.norm)
    gan = gan.to(memory_format=layout)
    optimizers = gan.configure_optimizers()
    gan.optimizers = lambda: optimizers  # type: ignore[method-assign, assignment]
    gan.manual_backward = lambda loss: loss.backward()  # type: ignore[method-assign, assignment]
    return gan


def step(gan: GAN, real: torch.Tensor, bf16: bool) -> None:
    """One batch: both players and the average."""
    generator, discriminator = gan.optimizers()  # type: ignore[misc]
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        gan.discriminator_step([(real, None)], discriminator)
        gan.generator_step([(real, None)], generator)
    ema.update(gan.average, gan.generator, 0.999)


def unfrozen_step(gan: GAN, real: torch.Tensor) -> None:
    """The same with the discriminator's gradients computed and thrown away, as tutorials do."""
    generator, discriminator = gan.optimizers()  # type: ignore[misc]
    gan.discriminator_step([(real, None)], discriminator)
    generator.zero_grad()
    logits = gan.critic(gan.generator(gan.latents(len(real))))
    gan.adversarial.generator(logits).backward()
    generator.step()
    ema.update(gan.average, gan.generator, 0.999)


def measure(variants: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """Median CPU seconds of each variant, in turns."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds + 1):
        for name, run in variants.items():
            before = time.process_time()
            run()
            times[name].append(time.process_time() - before)
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=["dcgan", "progan"], default="dcgan")
    parser.add_argument("--fade", action="store_true", help="ProGAN in the middle of a fade")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--norm", choices=["batch", "none"], default="batch")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    real = torch.rand(options.batch, 3, 64, 64) * 2 - 1
    plain, fast = make(options, torch.contiguous_format), make(options, torch.channels_last)
    variants: dict[str, Callable[[], None]] = {
        "fp32, D not frozen": lambda: unfrozen_step(plain, real),
        "fp32": lambda: step(plain, real, bf16=False),
        "fp32, channels_last": lambda: step(fast, real, bf16=False),
        "bf16": lambda: step(plain, real, bf16=True),
        "bf16, channels_last": lambda: step(fast, real, bf16=True),
    }
    found = measure(variants, options.rounds)
    slowest = found["fp32, D not frozen"]
    for name, seconds in found.items():
        print(f"{name:<22} {seconds / options.batch * 1e3:7.2f} ms/img  {slowest / seconds:5.2f}x")


if __name__ == "__main__":
    main()
