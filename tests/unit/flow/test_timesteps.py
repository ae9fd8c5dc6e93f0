import math

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from pydantic import ValidationError
from torch import Tensor

from contentv.flow.timesteps import SigmaDensity, sample_sigmas, sampling_sigmas, shift_sigmas

DRAWS = 20_000
# Kolmogorov-Smirnov at one in a million: a true density never fails, a wrong one by 2 % does.
LARGEST_GAP = 2.7 / math.sqrt(DRAWS)


def draw(density: SigmaDensity, seed: int = 0) -> Tensor:
    return sample_sigmas(density, DRAWS, torch.Generator().manual_seed(seed))


def gap(samples: Tensor, cdf: Tensor) -> float:
    """Largest distance between the empirical distribution and the CDF at the sorted samples."""
    assert len(samples) == len(cdf)
    steps = torch.arange(1, len(cdf) + 1) / len(cdf)
    return float((cdf.sort().values - steps).abs().max())


def normal_cdf(x: Tensor) -> Tensor:
    return 0.5 * (1 + torch.erf(x / math.sqrt(2)))


@pytest.mark.parametrize("shift", [1.0, 3.0, 17.0])
@pytest.mark.parametrize("steps", [1, 20, 50])
def test_the_scheduler_shifts_our_sigmas_by_our_formula(shift: float, steps: int) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(sigmas=sampling_sigmas(steps))
    expected = shift_sigmas(torch.tensor(sampling_sigmas(steps)), shift).float()
    assert torch.allclose(scheduler.sigmas[:-1], expected, atol=1e-6)
    assert scheduler.sigmas[-1] == 0
    assert torch.allclose(scheduler.timesteps, 1000 * expected, atol=1e-3)


def test_sampling_starts_from_pure_noise_in_equal_steps() -> None:
    sigmas = sampling_sigmas(5)
    assert np.allclose(sigmas, [1.0, 0.8, 0.6, 0.4, 0.2])


def test_shifts_keep_the_ends_and_the_order_and_multiply() -> None:
    sigmas = torch.linspace(0, 1, 101, dtype=torch.float64)
    shifted = shift_sigmas(sigmas, 3.0)
    assert shifted[0] == 0
    assert shifted[-1] == 1
    assert (shifted.diff() > 0).all()
    assert (shifted[1:-1] > sigmas[1:-1]).all()
    assert torch.equal(shift_sigmas(sigmas, 1.0), sigmas)
    assert torch.allclose(shift_sigmas(shifted, 2.0), shift_sigmas(sigmas, 6.0))


def test_uniform_density_is_uniform() -> None:
    sigmas = draw(SigmaDensity(name="uniform"))
    assert gap(sigmas, sigmas) < LARGEST_GAP


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (0.5, 1.0), (-1.0, 0.6)])
def test_logit_normal_density_is_normal_on_the_logits(mean: float, std: float) -> None:
    sigmas = draw(SigmaDensity(mean=mean, std=std))
    logits = torch.logit(sigmas)
    assert gap(sigmas, normal_cdf((logits - mean) / std)) < LARGEST_GAP


@pytest.mark.parametrize("name", ["uniform", "logit_normal"])
def test_a_shift_moves_every_draw_by_the_formula(name: str) -> None:
    plain = draw(SigmaDensity.model_validate({"name": name}))
    shifted = draw(SigmaDensity.model_validate({"name": name, "shift": 3.0}))
    assert torch.equal(shifted, shift_sigmas(plain, 3.0))


def test_shifting_a_logit_normal_adds_the_shifts_logarithm_to_its_mean() -> None:
    assert torch.allclose(
        draw(SigmaDensity(shift=4.0)), draw(SigmaDensity(mean=math.log(4.0))), atol=1e-6
    )


@pytest.mark.parametrize(
    "density", [SigmaDensity(name="uniform"), SigmaDensity(mean=2.0, std=3.0, shift=5.0)]
)
def test_draws_are_levels_and_belong_to_the_generator(density: SigmaDensity) -> None:
    sigmas = draw(density)
    assert sigmas.dtype == torch.float32
    assert sigmas.min() >= 0
    assert sigmas.max() <= 1
    assert torch.equal(sigmas, draw(density))
    assert not torch.equal(sigmas, draw(density, seed=1))


@pytest.mark.parametrize("field", ["std", "shift"])
def test_a_width_or_shift_of_zero_is_refused(field: str) -> None:
    with pytest.raises(ValidationError):
        SigmaDensity.model_validate({field: 0.0})
