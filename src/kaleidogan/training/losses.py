"""The adversarial losses and the penalties: formulas over logits and pictures."""

import math
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor, nn

from kaleidogan.models.convolutions import without_weight_gradients
from kaleidogan.training import ranks

Critic = Callable[[Tensor], Tensor]
"""The discriminator behind the augmentation: pictures -> logits."""


@runtime_checkable
class Loss(Protocol):
    """What each player minimises, from unreduced logits."""

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """The discriminator's loss."""
        ...

    def generator(self, fake: Tensor) -> Tensor:
        """The generator's loss."""
        ...

    def undecided(self, real: Tensor, fake: Tensor) -> float | Tensor:
        """The logit at which the discriminator takes a picture for neither: r_t is the sign from there."""
        ...


@runtime_checkable
class Penalty(Protocol):
    """What else the discriminator minimises, every so many batches."""

    every: int

    def __call__(self, critic: Critic, real: Tensor, make_fakes: Callable[[], Tensor]) -> Tensor:
        """The penalty, to be weighted by `every`; fakes are made only if it looks at them."""
        ...


@runtime_checkable
class GeneratorPenalty(Protocol):
    """What else the generator minimises, every so many of its steps."""

    every: int

    def __call__(self, generator: nn.Module, z: Tensor, c: Tensor | None) -> Tensor:
        """The penalty, to be weighted by `every`."""
        ...


class NonSaturating:
    """The non-saturating logistic loss (Goodfellow et al. 2014, "Generative adversarial nets")."""

    def discriminator(self, real: Float[Tensor, " n"], fake: Float[Tensor, " n"]) -> Float[Tensor, ""]:
        """-log sigmoid(real) - log(1 - sigmoid(fake)), averaged."""
        return F.softplus(-real).mean() + F.softplus(fake).mean()

    def generator(self, fake: Float[Tensor, " n"]) -> Float[Tensor, ""]:
        """-log sigmoid(fake), averaged."""
        return F.softplus(-fake).mean()

    def undecided(self, real: Float[Tensor, " n"], fake: Float[Tensor, " n"]) -> float:
        """The logit of one half."""
        return 0.0


class BCE:
    """Binary cross-entropy with a label for the reals, as DCGAN's implementations train.

    With a label of 1 it is the non-saturating loss in other words. Below 1 it is one-sided label smoothing
    (Salimans et al. 2016, "Improved techniques for training GANs"): it keeps the discriminator from
    being too sure of itself.

    Args:
        real_label: what the discriminator should say of a real picture, above 0 and at most 1.
    """

    def __init__(self, real_label: float = 1.0) -> None:
        if not 0 < real_label <= 1:
            raise ValueError(f"real_label {real_label} is not above 0 and at most 1")
        self.real_label = real_label

    def discriminator(self, real: Float[Tensor, " n"], fake: Float[Tensor, " n"]) -> Float[Tensor, ""]:
        """Cross-entropy of the reals to their label, plus that of the fakes to 0."""
        label = torch.full_like(real, self.real_label)
        on_real = F.binary_cross_entropy_with_logits(real, label)
        return on_real + F.binary_cross_entropy_with_logits(fake, torch.zeros_like(fake))

    def generator(self, fake: Float[Tensor, " n"]) -> Float[Tensor, ""]:
        """Cross-entropy of the fakes to 1."""
        return F.binary_cross_entropy_with_logits(fake, torch.ones_like(fake))

    def undecided(self, real: Float[Tensor, " n"], fake: Float[Tensor, " n"]) -> float:
        """The logit of one half."""
        return 0.0


class Wasserstein:
    """The Wasserstein loss (Arjovsky, Chintala and Bottou 2017), which a gradient penalty has to go with.

    Args:
        drift: weight of the squared logits of reals, which keeps them from drifting away from 0 (Karras et
            al. 2018, "Progressive growing of GANs for improved quality, stability, and variation").
    """

    def __init__(self, drift: float = 0.001) -> None:
        self.drift = drift

    def discriminator(self, real: Float[Tensor, " n"], fake: Float[Tensor, " n"]) -> Float[Tensor, ""]:
        """Fake - real + drift * real^2, averaged."""
        return fake.mean() - real.mean() + self.drift * real.square().mean()

    def generator(self, fake: Float[Tensor, " n"]) -> Float[Tensor, ""]:
        """-fake, averaged."""
        return -fake.mean()

    def undecided(self, real: Float[Tensor, " n"], fake: Float[Tensor, " n"]) -> Float[Tensor, ""]:
        """Half way between the means: only differences count here, and 0 is nowhere in particular."""
        return (real.mean() + fake.mean()) / 2


class GradientPenalty:
    """weight * (norm of the logits' gradient - 1)^2 between real and made pictures.

    From Gulrajani et al. 2017, "Improved training of Wasserstein GANs": each picture lies at a random place
    on the line from a real to a made one.
    """

    def __init__(self, weight: float = 10.0, every: int = 1) -> None:
        self.weight = weight
        self.every = every

    def __call__(
        self, critic: Critic, real: Float[Tensor, "n c h w"], make_fakes: Callable[[], Tensor]
    ) -> Float[Tensor, ""]:
        """The penalty, averaged over the pictures."""
        place = torch.rand(len(real), 1, 1, 1, device=real.device, dtype=real.dtype)
        between = torch.lerp(real, make_fakes().detach(), place).requires_grad_()
        gradient = input_gradient(widened(critic(between)).sum(), between)
        # The root of 0 has no slope.
        norm = (gradient.square().sum([1, 2, 3]) + 1e-12).sqrt()
        return self.weight * (norm - 1).square().mean()


class R1:
    """gamma / 2 * squared norm of the logits' gradient at real pictures.

    From Mescheder, Geiger and Nowozin 2018, "Which training methods for GANs do actually converge?"; lazily,
    every so many batches, as in Karras et al. 2020, "Analyzing and improving the image quality of StyleGAN".
    """

    def __init__(self, gamma: float, every: int = 16) -> None:
        self.gamma = gamma
        self.every = every

    def __call__(
        self, critic: Critic, real: Float[Tensor, "n c h w"], make_fakes: Callable[[], Tensor] | None = None
    ) -> Float[Tensor, ""]:
        """The penalty, averaged over the pictures."""
        real = real.detach().requires_grad_()
        gradient = input_gradient(widened(critic(real)).sum(), real)
        return self.gamma / 2 * gradient.square().sum([1, 2, 3]).mean()


class PathLength(nn.Module):
    """Path length regularisation: a step in w should change the picture by the same amount everywhere.

    From Karras et al. 2020, "Analyzing and improving the image quality of StyleGAN": the squared distance of
    |J_w^T y| from its running mean, for a random picture y; lazily, and on a part of the batch.

    Args:
        weight: of the penalty.
        every: generator steps from one to the next.
        shrink: by how much smaller the batch is, to save memory.
        decay: how fast the running mean follows.
    """

    def __init__(self, weight: float = 2.0, every: int = 4, shrink: int = 2, decay: float = 0.01) -> None:
        super().__init__()
        self.weight = weight
        self.every = every
        self.shrink = shrink
        self.decay = decay
        self.mean: Tensor
        self.register_buffer("mean", torch.zeros(()))

    def forward(
        self, generator: nn.Module, z: Float[Tensor, "n z"], c: Float[Tensor, "n c_dim"] | None = None
    ) -> Float[Tensor, ""]:
        """The penalty, averaged over the pictures; the running mean moves, on all ranks alike."""
        count = max(1, len(z) // self.shrink)
        w = generator.styles(z[:count], None if c is None else c[:count])  # type: ignore[operator]
        lengths = self.lengths(generator, w)
        self.mean.lerp_(ranks.mean(lengths.detach().mean().to(self.mean.dtype)), self.decay)
        return (lengths - self.mean).square().mean() * self.weight

    def lengths(self, generator: nn.Module, w: Float[Tensor, "n num_ws w_dim"]) -> Float[Tensor, " n"]:
        """|J_w^T y| of each picture, where |.|^2 is summed over w's numbers and averaged over the layers."""
        picture = generator.synthesis(w)  # type: ignore[operator]
        # Divided by the picture's side, so that the length does not grow with it.
        y = torch.randn_like(picture) / math.sqrt(picture.shape[2] * picture.shape[3])
        gradient = input_gradient((picture * y).sum(), w)
        return gradient.square().sum(2).mean(1).sqrt()


def input_gradient(value: Float[Tensor, ""], at: Tensor) -> Tensor:
    """The gradient of a value at an input, such that it can be differentiated again."""
    with without_weight_gradients(), torch.autocast(at.device.type, enabled=False):
        (gradient,) = torch.autograd.grad(value, at, create_graph=True)
    return gradient


def widened(logits: Tensor) -> Tensor:
    """Logits in float32 or better: sums and logarithms need it."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def lazy_scale(periods: list[int]) -> float:
    """By how much Adam's rates shrink when penalties take steps of their own: k / (k + 1), k > 1.

    The learning rate is multiplied by it and each beta raised to it (Karras et al. 2020, "Analyzing and
    improving the image quality of StyleGAN"), so that the moments forget at the same rate per image.
    """
    return 1 / (1 + sum(1 / every for every in periods if every > 1))
