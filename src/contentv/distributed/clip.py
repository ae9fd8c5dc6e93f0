"""Clipping of gradients that live on several meshes at once, or in every process whole."""

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.utils import get_total_norm

_EPS = 1e-6


@torch.no_grad()
def clip_grad_norm(parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
    """Scale gradients so that their joint 2-norm is at most `max_norm`; gives the norm before.

    Every process gets the same number. PyTorch's own function refuses gradients of several meshes,
    which FSDP beside tensor parallelism makes. A norm that is not finite spoils all gradients:
    look at it before the optimizer's step.
    """
    groups = by_mesh(p for p in parameters if p.grad is not None)
    gradients = [[p.grad for p in group if p.grad is not None] for group in groups]
    if not gradients:
        return torch.tensor(0.0)
    norm = torch.stack([_norm(group) for group in gradients]).norm()
    scale = (max_norm / (norm + _EPS)).clamp(max=1.0)
    for group in gradients:
        torch._foreach_mul_([_local(gradient) for gradient in group], scale)
    return norm


@torch.no_grad()
def sum_and_clip(parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
    """Sum gradients over all processes, each of which has all weights, then `clip_grad_norm`.

    Once per step, after its last backward. Every process must call this, with gradients of the same
    parameters; it gets the same bits as the others.
    """
    parameters = list(parameters)
    for parameter in parameters:
        if parameter.grad is not None:
            dist.all_reduce(parameter.grad)
    return clip_grad_norm(parameters, max_norm)


def by_mesh(parameters: Iterable[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Parameters in groups of one mesh each: fused and foreach operators take no mixture."""
    groups: dict[object, list[nn.Parameter]] = {}
    for parameter in parameters:
        mesh = parameter.device_mesh if isinstance(parameter, DTensor) else None
        groups.setdefault(mesh, []).append(parameter)
    return list(groups.values())


def _norm(gradients: list[Tensor]) -> Tensor:
    norm = get_total_norm(gradients)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
