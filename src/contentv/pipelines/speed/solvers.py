"""Solvers of second order, by diffusers, over the sigmas that the folder's own scheduler visits."""

from typing import TypeAlias

import numpy as np
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
)
from numpy.typing import NDArray
from torch import Tensor

from contentv.pipelines.speed.settings import Solver

_SOLVERS = {"dpm": DPMSolverMultistepScheduler, "unipc": UniPCMultistepScheduler}
# Both count in log(1 - sigma), which has no value at the first sigma, 1.
_NEXT_TO_ONE = 1 - 1e-6


class SecondOrderSolver:
    """Steps of second order in place of Euler's, at the same sigmas and timesteps.

    "dpm" is DPM-Solver++ (2M, arXiv 2211.01095), "unipc" UniPC (arXiv 2302.04867); each calls the
    network once a step. The first and the last step are of first order.
    """

    def __init__(self, scheduler: FlowMatchEulerDiscreteScheduler, name: str) -> None:
        self._scheduler = scheduler
        self._solver = _SOLVERS[name](
            use_flow_sigmas=True, prediction_type="flow_prediction", solver_order=2
        )

    @property
    def timesteps(self) -> Tensor:
        """Sigma * 1000 of each step, not rounded."""
        timesteps: Tensor = self._scheduler.timesteps
        return timesteps

    def set_timesteps(
        self, *, sigmas: NDArray[np.float64], device: torch.device | None = None
    ) -> None:
        """Begins a run over unshifted sigmas, from 1 and without the final 0."""
        self._scheduler.set_timesteps(sigmas=sigmas, device=device)
        self._solver.set_timesteps(len(sigmas), device=device)
        self._solver.sigmas = self._scheduler.sigmas.clamp(max=_NEXT_TO_ONE).cpu()
        self._solver.timesteps = self.timesteps
        self._solver.set_begin_index(0)

    def step(
        self, velocity: Tensor, timestep: Tensor, latents: Tensor, *, return_dict: bool
    ) -> tuple[Tensor]:
        """Latents at the next sigma, in the dtype of `velocity`; computed in float32."""
        assert not return_dict
        step = self._solver.step(velocity.float(), timestep, latents.float(), return_dict=False)
        return (step[0].to(velocity.dtype),)


Scheduler: TypeAlias = FlowMatchEulerDiscreteScheduler | SecondOrderSolver


def with_solver(scheduler: FlowMatchEulerDiscreteScheduler, solver: Solver) -> Scheduler:
    """The scheduler with another solver over its sigmas; "euler" is the scheduler itself."""
    return scheduler if solver == "euler" else SecondOrderSolver(scheduler, solver)
