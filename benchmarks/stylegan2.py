"""StyleGAN2-ADA's or SWAGAN's iteration on one core, as a share of the machine's own convolution peak.

    python benchmarks/stylegan2.py --resolution 64 --batch 8            # bf16 and fp32
    python benchmarks/stylegan2.py --resolution 256 --batch 4 --profile
    python benchmarks/stylegan2.py --model swagan
    python benchmarks/stylegan2.py --precision bf16 --without convolutions    # or filters, finish
    ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16 python benchmarks/stylegan2.py        # bf16 without AMX

The peak is the forward 3x3 convolution of 256 channels, 32 px, batch 8, channels_last, in the same precision.
The share is the arithmetic of one lazily regularised iteration, 4.75 G + 8.375 D forward passes, over its
time. Times are CPU times of the process with one thread; the phases take turns, and medians are shown.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F  # noqa: N812
from torch.utils.flop_counter import FlopCounterMode

from kaleidogan.models import layers, ops
from kaleidogan.training import ema
from kaleidogan.training.augment.ada import ADA
from kaleidogan.training.modules import SWAGAN, StyleGAN2ADA
from kaleidogan.training.trainer import keep_memory


def seconds(run: Callable[[], object], rounds: int) -> float:
    """Median CPU time of a call, after one to warm up."""
    times = []
    for _ in range(rounds + 1):
        before = time.process_time()
        run()
        times.append(time.process_time() - before)
    return statistics.median(times[1:])


def peak(dtype: torch.dtype) -> float:
    """FLOP a second of the convolution that all is compared with."""
    x = torch.randn(8, 256, 32, 32).to(dtype).to(memory_format=torch.channels_last)
    weight = torch.randn(256, 256, 3, 3).to(dtype).to(memory_format=torch.channels_last)
    with torch.no_grad():
        took = seconds(lambda: torch.nn.functional.conv2d(x, weight, padding=1), 20)
    return 2 * 8 * 256 * 256 * 9 * 32 * 32 / took


def forward_flop(gan: StyleGAN2ADA | SWAGAN, resolution: int) -> tuple[int, int]:
    """FLOP of the generator and the discriminator for one picture."""
    found = []
    for network, shape in ((gan.generator, (1, 512)), (gan.discriminator, (1, 3, resolution, resolution))):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network.eval()(torch.randn(shape))
        network.train()
        found.append(counter.get_total_flops())
    return found[0], found[1]


def plain_filter(x: torch.Tensor, padding: int, gain: float = 1.0) -> torch.Tensor:
    """The low-pass filter as PyTorch differentiates it."""
    return F.conv2d(x, ops.fir(gain, x), padding=padding, groups=x.shape[1])


def plain_upsample(x: torch.Tensor) -> torch.Tensor:
    """Likewise, after zeros between the pixels."""
    return F.conv_transpose2d(x, ops.fir(4.0, x), padding=1, stride=2, groups=x.shape[1])


def plain_downsample(x: torch.Tensor) -> torch.Tensor:
    """Likewise, then every second pixel."""
    return F.conv2d(x, ops.fir(1.0, x), padding=1, stride=2, groups=x.shape[1])


def plain_finish(
    x: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor, noise: torch.Tensor | None, slope: float
) -> torch.Tensor:
    """Scale, bias, noise and leaky ReLU, one after the other."""
    y = x * scale[:, :, None, None] + bias[:, None, None]
    return F.leaky_relu(y if noise is None else y + noise, slope)


def replace_by_plain(name: str) -> None:
    """Put PyTorch's own operations in the place of some of ours, to see what those are worth."""
    if name == "convolutions":
        ops.conv = layers.conv = F.conv2d  # type: ignore[assignment]
        ops.conv_transpose = partial(F.conv_transpose2d, stride=2)  # type: ignore[assignment]
    elif name == "filters":
        ops.blur, ops.upsample, ops.downsample = plain_filter, plain_upsample, plain_downsample
    elif name == "finish":
        ops.finish = plain_finish
        ops.modulate = lambda x, scale: x * scale[:, :, None, None]  # type: ignore[assignment]


def make(options: argparse.Namespace) -> StyleGAN2ADA | SWAGAN:
    """The model with its optimisers at hand, outside of a trainer."""
    torch.manual_seed(0)
    # SWAGAN's mapping is deeper as published; here it is StyleGAN2's, so that the same work is compared.
    model = StyleGAN2ADA if options.model == "stylegan2" else SWAGAN
    gan = model(resolution=options.resolution, batch_size=options.batch, mapping_layers=2)
    optimizers = gan.configure_optimizers()
    gan.optimizers = lambda: optimizers  # type: ignore[method-assign, assignment]
    gan.manual_backward = lambda loss: loss.backward()  # type: ignore[method-assign, assignment]
    return gan


def phases(
    gan: StyleGAN2ADA | SWAGAN, real: torch.Tensor, bf16: bool
) -> dict[str, tuple[Callable[[], object], float]]:
    """Each part of an iteration, and how many times it happens in one."""
    generator, discriminator = gan.optimizers()  # type: ignore[misc]
    parts = [(real, None)]
    r1, path_length = gan.penalties["penalty/r1"], gan.generator_penalties["penalty/path_length"]

    class Idle:
        """An optimiser that does nothing, to time the others apart."""

        zero_grad = staticmethod(generator.zero_grad)

        def step(self) -> None:
            """Do nothing."""

    def cast(run: Callable[[], object]) -> Callable[[], None]:
        def inside() -> None:
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                run()
            for network in (gan.generator, gan.discriminator):
                network.zero_grad()

        return inside

    def update() -> None:
        ema.update(gan.average, gan.generator, 0.999)

    def optimize(optimizer: torch.optim.Optimizer) -> Callable[[], None]:
        def step() -> None:
            optimizer.step()

        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.zeros_like(parameter)
        return step

    idle = Idle()
    return {
        "G main": (cast(lambda: gan.generator_step(parts, idle)), 1),
        "D main": (cast(lambda: gan.discriminator_step(parts, idle)), 1),
        "G path length": (cast(lambda: gan.generator_penalty_step(path_length, parts, idle)), 1 / 4),  # type: ignore[arg-type]
        "D R1": (cast(lambda: gan.penalty_step(r1, parts, idle)), 1 / 16),
        "Adam G": (optimize(generator), 1 + 1 / 4),
        "Adam D": (optimize(discriminator), 1 + 1 / 16),
        "average": (update, 1),
    }


def measure(gan: StyleGAN2ADA | SWAGAN, real: torch.Tensor, bf16: bool, rounds: int) -> dict[str, float]:
    """Milliseconds an image of each phase's share in an iteration."""
    found = {}
    for name, (run, count) in phases(gan, real, bf16).items():
        if name.startswith("Adam"):
            for network in (gan.generator, gan.discriminator):
                for parameter in network.parameters():
                    parameter.grad = torch.zeros_like(parameter)
        found[name] = seconds(run, rounds) * count / len(real) * 1e3
    return found


def augmentation(real: torch.Tensor, rounds: int) -> float:
    """Milliseconds an image of ADA, bgc at p = 0.3: with gradients for G, without for D's reals and fakes."""
    ada, image = ADA(p=0.3), real.clone().requires_grad_()

    def run() -> None:
        ada(image).sum().backward()
        with torch.no_grad():
            ada(real), ada(real)

    return seconds(run, rounds) / len(real) * 1e3


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=["stylegan2", "swagan"], default="stylegan2")
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", choices=["bf16", "fp32", "both"], default="both")
    parser.add_argument("--profile", action="store_true", help="also the operations that take longest")
    parser.add_argument("--without", choices=["convolutions", "filters", "finish", "kept memory"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.without != "kept memory":
        keep_memory()
    replace_by_plain(options.without)
    gan = make(options)
    real = torch.rand(options.batch, 3, options.resolution, options.resolution) * 2 - 1
    flop = forward_flop(gan, options.resolution)
    total = 4.75 * flop[0] + 8.375 * flop[1]
    print(f"G {flop[0] / 1e9:.1f}, D {flop[1] / 1e9:.1f}, an iteration {total / 1e9:.0f} GFLOP an image")
    for precision in ("bf16", "fp32") if options.precision == "both" else (options.precision,):
        bf16 = precision == "bf16"
        limit = peak(torch.bfloat16 if bf16 else torch.float32)
        times = measure(gan, real, bf16, options.rounds)
        took = sum(times.values())
        print(f"\n{precision}: peak {limit / 1e9:.0f} GFLOP/s")
        for name, value in times.items():
            print(f"  {name:<14} {value:8.1f} ms/img  {value / took:6.1%}")
        share = total / (took / 1e3) / limit
        print(f"  {'in all':<14} {took:8.1f} ms/img  {share:.1%} of the peak")
        ada = augmentation(real, options.rounds)
        print(f"  {'ADA, besides':<14} {ada:8.1f} ms/img  {ada / took:6.1%}")
        if options.profile:
            with torch.profiler.profile() as profile:
                for run, _ in list(phases(gan, real, bf16).values())[:4]:
                    run()
            print(
                profile.key_averages().table(
                    sort_by="self_cpu_time_total", row_limit=25, max_name_column_width=50
                )
            )


if __name__ == "__main__":
    main()
