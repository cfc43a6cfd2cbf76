"""The models as LightningModules: each takes its published hyper-parameters and hands its parts to `GAN`."""

from kaleidogan.training.modules.dcgan import DCGAN
from kaleidogan.training.modules.progan import ProGAN
from kaleidogan.training.modules.stylegan2_ada import StyleGAN2ADA
from kaleidogan.training.modules.swagan import SWAGAN

__all__ = ["DCGAN", "SWAGAN", "ProGAN", "StyleGAN2ADA"]
