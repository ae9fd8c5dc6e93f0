"""Second-order solvers: Euler's sigmas, a higher order, dtypes."""

import math

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from contentv.flow.timesteps import sampling_sigmas
from contentv.pipelines.speed.settings import Solver
from contentv.pipelines.speed.solvers import SecondOrderSolver, with_solver

WIDTH = 0.5  # of the data, a normal distribution
HIGHER: tuple[Solver, ...] = ("dpm", "unipc")


def solve(solver: Solver, steps: int, *, shift: float = 1.0) -> float:
    """From noise 1 to data, where the velocity is linear: the solution is WIDTH."""
    scheduler = with_solver(FlowMatchEulerDiscreteScheduler(shift=shift), solver)
    scheduler.set_timesteps(sigmas=sampling_sigmas(steps), device=None)
    latents = torch.ones(1, 1, 1, 1, 1)
    for timestep in scheduler.timesteps:
        sigma = float(timestep) / 1000
        variance = (1 - sigma) ** 2 * WIDTH**2 + sigma**2
        velocity = latents * (sigma - (1 - sigma) * WIDTH**2) / variance
        latents = scheduler.step(velocity, timestep, latents, return_dict=False)[0]
    return float(latents)


def order(solver: Solver) -> float:
    """By how many powers of two the error falls when the steps are halved."""
    coarse, fine = (abs(solve(solver, steps) - WIDTH) for steps in (48, 192))
    return math.log2(coarse / fine) / 2


def test_euler_is_of_first_order() -> None:
    assert order("euler") == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("solver", HIGHER)
def test_others_are_of_second(solver: Solver) -> None:
    assert order(solver) > 1.5
    assert abs(solve(solver, 24) - WIDTH) < abs(solve("euler", 96) - WIDTH)


@pytest.mark.parametrize("solver", HIGHER)
@pytest.mark.parametrize("shift", [1.0, 6.0, 17.0])
def test_they_visit_the_timesteps_of_euler(solver: Solver, shift: float) -> None:
    euler = FlowMatchEulerDiscreteScheduler(shift=shift)
    other = with_solver(FlowMatchEulerDiscreteScheduler(shift=shift), solver)
    for scheduler in (euler, other):
        scheduler.set_timesteps(sigmas=sampling_sigmas(7), device=None)
    assert torch.equal(other.timesteps, euler.timesteps)
    assert other.timesteps[0] == 1000
    assert isinstance(other, SecondOrderSolver)
    np.testing.assert_allclose(other._solver.sigmas, euler.sigmas, atol=2e-6)


@pytest.mark.parametrize("solver", HIGHER)
def test_a_straight_path_is_followed_exactly(solver: Solver) -> None:
    """Where all data is one point, every velocity is the same, and few steps are enough."""
    noise, point = torch.randn(1, 2, 3, 4, 5), torch.randn(1, 2, 3, 4, 5)
    scheduler = with_solver(FlowMatchEulerDiscreteScheduler(shift=6.0), solver)
    scheduler.set_timesteps(sigmas=sampling_sigmas(4), device=None)
    latents = noise
    for timestep in scheduler.timesteps:
        latents = scheduler.step(noise - point, timestep, latents, return_dict=False)[0]
    torch.testing.assert_close(latents, point, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("solver", HIGHER)
def test_one_step_is_euler_and_keeps_the_dtype(solver: Solver) -> None:
    def one(name: Solver) -> Tensor:
        scheduler = with_solver(FlowMatchEulerDiscreteScheduler(shift=6.0), name)
        scheduler.set_timesteps(sigmas=sampling_sigmas(1), device=None)
        ones = torch.ones(1, 1, 1, 2, 2, dtype=torch.bfloat16)
        latents: Tensor = scheduler.step(ones / 4, scheduler.timesteps[0], ones, return_dict=False)[
            0
        ]
        return latents

    assert one(solver).dtype == torch.bfloat16
    torch.testing.assert_close(one(solver), one("euler"))
