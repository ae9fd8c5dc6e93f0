"""Optimisers by name, and the learning rate as a pure function of the step."""

import math
from collections.abc import Iterable

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from contentv.base.errors import UserError
from contentv.distributed.clip import by_mesh
from contentv.training.config import OptimizerConfig
from contentv.training.muon import BatchedMuon


def build_optimizers(
    named: Iterable[tuple[str, nn.Parameter]], config: OptimizerConfig
) -> list[Optimizer]:
    """One AdamW, or Muon for the matrices inside transformer blocks and AdamW for the rest.

    UserError when Muon is asked for and there are no such matrices.
    """
    named = list(named)
    blocks = [p for name, p in named if config.name == "muon" and _is_hidden_matrix(name, p)]
    if config.name == "muon" and not blocks:
        raise UserError("optimizer.name=muon: the networks have no transformer blocks; use adamw")
    taken = {id(p) for p in blocks}
    rest = [p for _, p in named if id(p) not in taken]
    decayed = [p for p in rest if p.ndim > 1]
    plain = [p for p in rest if p.ndim <= 1]
    groups = [
        *({"params": some, "weight_decay": config.weight_decay} for some in by_mesh(decayed)),
        # Muon may take all there is: then AdamW has one group, of nothing.
        *({"params": some, "weight_decay": 0.0} for some in by_mesh(plain) or [[]]),
    ]
    optimizers: list[Optimizer] = [
        torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, fused=True)
    ]
    if blocks:
        spread = any(isinstance(p, DTensor) for p in blocks)
        optimizers.append(
            (torch.optim.Muon if spread else BatchedMuon)(
                blocks,
                lr=config.learning_rate,
                weight_decay=config.weight_decay,
                adjust_lr_fn="match_rms_adamw",
            )
        )
    return optimizers


def learning_rate(config: OptimizerConfig, step: int, steps: int) -> float:
    """Linear warm-up, plateau, then half a cosine down to `final_ratio` of the peak at `steps`.

    A constant schedule is the plateau without an end.
    """
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return config.learning_rate
    done = (step - config.warmup_steps) / max(1, steps - config.warmup_steps)
    fallen = max(0.0, (done - config.hold) / (1 - config.hold))
    ratio = config.final_ratio + (1 - config.final_ratio) * 0.5 * (1 + math.cos(math.pi * fallen))
    return config.learning_rate * ratio


def _is_hidden_matrix(name: str, parameter: nn.Parameter) -> bool:
    # Modulation layers see one row a sample: orthogonalising them costs more than it brings.
    return parameter.ndim == 2 and "_blocks." in name and ".norm" not in name
