"""Recomputation that keeps the results of exchanges."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from contentv.distributed.collectives import exchange
from contentv.distributed.recompute import SAVED_OPERATORS, recomputed
from ranks import run_ranks

RANKS = 2


class InPlaceExchange(torch.autograd.Function):
    """The obvious way to write it: an in-place collective and its own backward."""

    @staticmethod
    def forward(_: Any, tensor: Tensor) -> Tensor:  # noqa: ANN401
        out = torch.zeros_like(tensor)
        dist.all_to_all_single(out, tensor.contiguous())
        return out

    @staticmethod
    def backward(_: Any, grad: Tensor) -> Tensor:  # noqa: ANN401
        return InPlaceExchange.forward(None, grad)


def ours(tensor: Tensor) -> Tensor:
    shapes = [tensor.shape[1:]] * RANKS
    return torch.stack(exchange(list(tensor), shapes, dist.group.WORLD, even=True))


def gradient(swap: Callable[[Tensor], Tensor], wrap: Callable[..., Any]) -> Tensor:
    """Of a function whose backward needs what was exchanged."""
    generator = torch.Generator().manual_seed(dist.get_rank())
    tensor = torch.randn(RANKS, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    wrap(lambda x: swap(x.sin()).sin())(tensor).sum().backward()
    assert tensor.grad is not None
    return tensor.grad


def kept_exchanges() -> None:
    expected = gradient(ours, lambda forward: forward)
    assert torch.equal(gradient(InPlaceExchange.apply, lambda forward: forward), expected)
    assert torch.equal(gradient(ours, recomputed), expected)
    assert torch.equal(gradient(ours, lambda f: recomputed(f, saved=SAVED_OPERATORS)), expected)
    # Kept like ours, the in-place exchange gives other gradients and no error.
    faulty = gradient(InPlaceExchange.apply, lambda f: recomputed(f, saved=("alltoall_base",)))
    assert (faulty - expected).abs().max() > 1e-3


def test_gradients_are_the_same_whether_exchanges_are_kept_or_repeated(tmp_path: Path) -> None:
    run_ranks(kept_exchanges, RANKS, tmp_path)
