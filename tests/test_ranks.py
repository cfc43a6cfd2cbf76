"""Several ranks: real processes that talk by gloo, against one process that plays all of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from forked import results
from kaleidogan.training import modules, ranks
from kaleidogan.training.augment.ada import ADA
from kaleidogan.training.callbacks.adaptive import steering
from kaleidogan.training.gan import GAN
from kaleidogan.training.place import Place, find_place
from kaleidogan.training.runs import Run
from kaleidogan.training.trainer import trainer

BATCH = 8
STEPS = 20
RANKS = 2
SETTINGS: dict[str, dict[str, Any]] = {
    "DCGAN": {"width": 4, "latent_dim": 8, "r1_gamma": 1.0, "r1_every": 3},
    "ProGAN": {"channel_base": 64, "channel_max": 8, "latent_dim": 8},
    "StyleGAN2ADA": {
        **{"channel_base": 64, "channel_max": 8, "latent_dim": 8, "w_dim": 8},
        **{"r1_gamma": 1.0, "r1_every": 3, "path_length_every": 2},
    },
    "SWAGAN": {
        **{"channel_base": 64, "channel_max": 8, "latent_dim": 8, "w_dim": 8},
        **{"r1_gamma": 1.0, "r1_every": 3, "path_length_every": 2},
    },
}
"""Small models with R1, path lengths or the gradient penalty on."""


def make(model: str, dtype: torch.dtype) -> GAN:
    torch.set_default_dtype(dtype)
    torch.manual_seed(0)
    ada = ADA(kimg=1.0, interval=2)
    ada.p.fill_(0.3)
    gan: GAN = getattr(modules, model)(resolution=16, batch_size=BATCH, augment=ada, **SETTINGS[model])
    return gan.to(dtype)


def pictures(dtype: torch.dtype) -> torch.Tensor:
    drawn = torch.randn(STEPS, BATCH, 3, 16, 16, generator=torch.Generator().manual_seed(1), dtype=dtype)
    return drawn.clamp(-1, 1)


class Watch(pl.Callback):
    """Seeds the noise, keeps what is worth comparing, and stops after an epoch."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self.gradients: list[torch.Tensor] = []
        self.scalars: list[dict[str, torch.Tensor]] = []

    def on_train_start(self, trainer, pl_module):
        torch.manual_seed(self._seed)

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        if len(self.gradients) < 2:  # the discriminator's first and the generator's
            learnt = [p for group in optimizer.param_groups for p in group["params"]]
            found = [p.grad.flatten() for p in learnt if p.grad is not None]
            self.gradients.append(torch.cat(found))

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.scalars.append(dict(outputs))

    def on_train_epoch_end(self, trainer, pl_module):
        trainer.should_stop = True


def fit(gan: GAN, batches: torch.Tensor, seed: int, folder: Path) -> dict[str, Any]:
    watch = Watch(seed)
    callbacks = [*steering(gan, Run("a", folder)), watch]
    loader = torch.utils.data.DataLoader([{"image": batch} for batch in batches], batch_size=None)
    made = trainer(accelerator="cpu", precision="32-true", folder=folder, callbacks=callbacks, loggers=[])
    made.fit(gan, loader)
    state = gan.state_dict().items()
    # Of batch norm's state, the number of its passes tells how many parts a batch was played in.
    weights = {k: v for k, v in state if isinstance(v, torch.Tensor) and "num_batches" not in k}
    adam = [state for optimizer in made.optimizers for state in optimizer.state_dict()["state"].values()]
    moments = {f"adam/{n}/{key}": value for n, state in enumerate(adam) for key, value in state.items()}
    return {"state": {**weights, **moments}, "gradients": watch.gradients, "scalars": watch.scalars}


class Shares(list[Any]):
    """The ranks' parts of a batch, each played with a rank's own random numbers and running figures."""

    def __init__(self, parts: list[Any], gan: "Both") -> None:
        super().__init__(parts)
        self._gan = gan

    def __iter__(self) -> Iterator[Any]:
        for rank, part in enumerate(super().__iter__()):
            torch.set_rng_state(self._gan.streams[rank])
            self._gan.set_figures(self._gan.figures[rank])
            yield part
            self._gan.streams[rank] = torch.get_rng_state()
            self._gan.figures[rank] = self._gan.running()


class Both(GAN):
    """One process that plays all ranks: its weights are one, so nothing can come to differ."""

    streams: list[torch.Tensor]
    figures: list[list[torch.Tensor]]

    def running(self) -> list[torch.Tensor]:
        return [figure.clone() for figure in self._running_figures()]

    def set_figures(self, values: list[torch.Tensor]) -> None:
        for figure, value in zip(self._running_figures(), values, strict=True):
            figure.copy_(value)

    def split(self, batch):
        return Shares(super().split(batch), self)

    def generator_penalty_step(self, penalty, parts, optimizer):
        """The running mean moves by the mean over all ranks, and then each is compared with it."""
        optimizer.zero_grad()
        lengths = []
        for real, _ in parts:
            w = self.generator.styles(self.latents(len(real))[: len(real) // penalty.shrink], None)
            lengths.append(penalty.lengths(self.generator, w))
        found = torch.cat(lengths)
        penalty.mean += penalty.decay * (found.detach().mean() - penalty.mean)
        value = (found - penalty.mean).square().mean() * penalty.weight
        self.manual_backward(value * penalty.every)
        optimizer.step()
        return value.detach()

    def advance_average(self, images: int) -> None:
        means = [torch.stack(values).mean(0) for values in zip(*self.figures, strict=True)]
        self.figures = [means] * RANKS
        self.set_figures(means)
        super().advance_average(images)


def as_rank(model: str, dtype: torch.dtype, rank: int, folder: Path, steps: int) -> dict[str, Any]:
    share = slice(rank * BATCH // RANKS, (rank + 1) * BATCH // RANKS)
    return fit(make(model, dtype), pictures(dtype)[:steps, share], 100 + rank, folder)


def as_all(model: str, dtype: torch.dtype, folder: Path, steps: int) -> dict[str, Any]:
    gan = make(model, dtype)
    gan.__class__ = type("Played", (Both, type(gan)), {})
    gan.accumulate = RANKS
    gan.streams = [torch.Generator().manual_seed(100 + r).get_state() for r in range(RANKS)]
    gan.figures = [gan.running() for _ in range(RANKS)]
    return fit(gan, pictures(dtype)[:steps], 0, folder)


def farthest(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> float:
    assert found.keys() == wanted.keys()
    return max(float((found[key].double() - wanted[key].double()).abs().max()) for key in found)


@pytest.mark.parametrize(
    "model",
    [
        "DCGAN",
        "StyleGAN2ADA",
        *(pytest.param(model, marks=pytest.mark.slow) for model in ("ProGAN", "SWAGAN")),
    ],
)
def test_two_ranks_equal_one_process_that_plays_both(model, tmp_path):
    lengths = {torch.float64: STEPS, torch.float32: 1}

    def part(rank: int) -> list[Any]:
        return [as_rank(model, dtype, rank, tmp_path, steps) for dtype, steps in lengths.items()]

    def all_parts(rank: int) -> list[Any]:
        return [as_all(model, dtype, tmp_path, steps) for dtype, steps in lengths.items()]

    (one, one_single), (two, _) = results(RANKS, part, tmp_path)
    ((whole, whole_single),) = results(1, all_parts, tmp_path)
    for key, value in one["state"].items():
        assert torch.equal(value, two["state"][key]), key
    assert farthest(one["state"], whole["state"]) < 1e-9
    assert len(one["scalars"]) == STEPS
    for step, (mine, theirs) in enumerate(zip(one["scalars"], whole["scalars"], strict=True)):
        assert farthest(mine, theirs) < 1e-9, step
    names = set().union(*one["scalars"])
    assert {"augment/p", "loss/generator"} <= names
    assert any(name.startswith("penalty/") for name in names)
    assert len({float(scalars["augment/p"]) for scalars in one["scalars"]}) > 3
    # Rounding grows from step to step, so in single precision the first step's gradients are compared.
    for mine, theirs in zip(one_single["gradients"], whole_single["gradients"], strict=True):
        assert float((mine - theirs).norm() / theirs.norm()) < 1e-5


def test_means_keep_shapes_and_types(tmp_path):
    def work(rank: int) -> list[torch.Tensor]:
        odd = torch.arange(24.0).reshape(1, 2, 3, 4).to(memory_format=torch.channels_last) * (rank + 1)
        tensors = [odd, torch.tensor(float(rank)), torch.full((3,), float(rank), dtype=torch.float64)]
        ranks.average(tensors)
        assert tensors[0].is_contiguous(memory_format=torch.channels_last)
        return tensors

    for odd, scalar, double in results(RANKS, work, tmp_path):
        assert torch.equal(odd, torch.arange(24.0).reshape(1, 2, 3, 4) * 1.5)
        assert scalar == 0.5
        assert torch.equal(double, torch.full((3,), 0.5, dtype=torch.float64))


def test_what_one_rank_hears_all_hear_at_the_next_step(tmp_path):
    def work(rank: int) -> list[int]:
        agreement = ranks.Agreement()
        said = [0, 0, 15 if rank == 1 else 0, 0]
        return [agreement.reached(number) for number in said]

    assert results(RANKS, work, tmp_path) == [[0, 0, 0, 15]] * 2
    assert ranks.Agreement().reached(10) == 10


@pytest.mark.parametrize(
    ("environment", "place"),
    [
        ({}, Place()),
        (
            {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"},
            Place(3, 4, 1, 2),
        ),
        # A batch script itself is told how many tasks it may start, and is none of them.
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "2", "SLURM_JOB_ID": "7"}, Place()),
        (
            {
                **{"SLURM_STEP_ID": "0", "SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8"},
                **{"SLURM_LOCALID": "1", "SLURM_STEP_TASKS_PER_NODE": "4(x2)"},
            },
            Place(5, 8, 1, 4),
        ),
    ],
)
def test_a_process_finds_its_place(environment, place):
    assert find_place(environment) == place


def test_a_place_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match="RANK=2 is not a rank of WORLD_SIZE=2"):
        find_place({"RANK": "2", "WORLD_SIZE": "2"})
