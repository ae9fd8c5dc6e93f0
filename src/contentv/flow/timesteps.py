"""Which noise levels training visits, and which sampling steps through."""

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from contentv.base.config import Config


class SigmaDensity(Config):
    """Density of sigma in training: uniform, or the logistic of a normal; then shifted to noise.

    `mean` > 0 and `shift` > 1 both visit high noise more often (arXiv 2403.03206, section 3.1).
    """

    name: Literal["uniform", "logit_normal"] = "logit_normal"
    mean: float = 0.0
    std: float = Field(1.0, gt=0)
    shift: float = Field(1.0, gt=0)


def sample_sigmas(density: SigmaDensity, count: int, generator: torch.Generator) -> Tensor:
    """Draw float32 [count] in 0..1."""
    if density.name == "uniform":
        sigmas = torch.rand(count, generator=generator)
    else:
        sigmas = torch.sigmoid(torch.randn(count, generator=generator) * density.std + density.mean)
    return shift_sigmas(sigmas, density.shift)


def shift_sigmas(sigmas: Tensor, shift: float) -> Tensor:
    """Move noise levels towards 1 for shift > 1: s·sigma / (1 + (s-1)·sigma)."""
    return shift * sigmas / (1 + (shift - 1) * sigmas)


def sampling_sigmas(num_steps: int) -> NDArray[np.float64]:
    """Unshifted sigmas of a sampling run: from 1 in equal steps, the final 0 left out.

    The scheduler of a model folder applies the flow shift and appends the 0.
    """
    return np.linspace(1.0, 0.0, num_steps + 1)[:-1]
