"""Ulysses against one process: 38 heads and token counts that no degree divides."""

from itertools import product
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from contentv.distributed.collectives import exchange
from contentv.distributed.ulysses import Ulysses
from ranks import run_ranks

HEADS, DIM, BATCH = 38, 4, 2
LENGTHS = [(37, 13), (40, 8), (3, 1)]
EXACT = 1e-12


def softmax_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    heads = [t.transpose(1, 2) for t in (query, key, value)]
    return F.scaled_dot_product_attention(*heads).transpose(1, 2)


def inputs(video: int, text: int) -> tuple[Tensor, Tensor]:
    """Queries, keys and values of both streams [3 b n h d], and what the output is weighted by."""
    generator = torch.Generator().manual_seed(0)
    shape = (BATCH, video + text, HEADS, DIM)
    qkv = torch.randn(3, *shape, generator=generator, dtype=torch.float64)
    return qkv, torch.randn(shape, generator=generator, dtype=torch.float64)


def alone(video: int, text: int) -> tuple[Tensor, Tensor]:
    """Output and gradients [3 b n h d] of one process."""
    qkv, weight = inputs(video, text)
    qkv.requires_grad_()
    out = softmax_attention(*qkv.unbind())
    (out * weight).sum().backward()
    assert qkv.grad is not None
    return out.detach(), qkv.grad


def together(ulysses: Ulysses, video: int, text: int) -> tuple[Tensor, Tensor]:
    """The same; every process has the gradients of its own tokens only."""
    qkv, weight = inputs(video, text)
    qkv.requires_grad_()
    ulysses.start({"video": video, "text": text})
    local_video = [ulysses.shard("video", t[:, :video]) for t in qkv.unbind()]
    local_text = [ulysses.shard("text", t[:, video:]) for t in qkv.unbind()]
    joint = [torch.cat(pair, dim=1) for pair in zip(local_video, local_text, strict=True)]
    mixed = ulysses.attend(softmax_attention, *joint)
    mixed_video, mixed_text = mixed.split([local_video[0].shape[1], local_text[0].shape[1]], dim=1)
    whole = [ulysses.gather("video", mixed_video), ulysses.gather("text", mixed_text)]
    out = torch.cat(whole, dim=1)
    (out * weight).sum().backward()
    assert qkv.grad is not None
    return out.detach(), qkv.grad


def check_group(group: dist.ProcessGroup) -> None:
    for (video, text), even in product(LENGTHS, (True, False)):
        out, grads = together(Ulysses(group, even=even), video, text)
        expected_out, expected_grads = alone(video, text)
        dist.all_reduce(grads, group=group)
        assert (out - expected_out).abs().max() <= EXACT, (video, text, even)
        assert (grads - expected_grads).abs().max() <= EXACT, (video, text, even)


def in_small_groups() -> None:
    for degree in (1, 2, 3, 4):
        group = dist.new_group(list(range(degree)))
        if dist.get_rank() < degree:
            check_group(group)
    check_later_forward_does_not_disturb_an_earlier_backward()
    check_zeros_left_in_would_be_seen()


def in_a_group_of_eight() -> None:
    check_group(dist.group.WORLD)


def check_later_forward_does_not_disturb_an_earlier_backward() -> None:
    """37 and 39 tokens make shares of one size: only the length tells them apart."""
    ulysses = Ulysses(dist.group.WORLD, even=True)
    seen = []
    tokens = torch.ones(1, 39, 1, requires_grad=True)
    wholes = []
    for length in (37, 39):
        ulysses.start({"video": length})
        local = ulysses.shard("video", tokens[:, :length])
        local.register_hook(lambda _: seen.append(dict(ulysses.lengths)))
        wholes.append(ulysses.gather("video", local))
    sum(whole.sum() for whole in wholes).backward()
    assert seen == [{"video": 39}, {"video": 37}]


def check_zeros_left_in_would_be_seen() -> None:
    """The law above would catch attention that sees the zeros of an even split."""
    group = dist.group.WORLD
    ulysses = Ulysses(group, even=True)
    ulysses._tokens = ulysses._kept_tokens  # type: ignore[method-assign]
    out, _ = together(ulysses, 37, 13)
    assert (out - alone(37, 13)[0]).abs().max() > 1e-3


def exchange_all() -> None:
    rank, size = dist.get_rank(), dist.get_world_size()
    parts = [torch.full((rank, j), 10.0 * rank + j, requires_grad=True) for j in range(size)]
    shapes = [(j, rank) for j in range(size)]
    received = exchange(parts, shapes, dist.group.WORLD, even=False)
    for j, piece in enumerate(received):
        assert torch.equal(piece, torch.full((j, rank), 10.0 * j + rank))
    sum((10 * j + rank) * piece.sum() for j, piece in enumerate(received)).backward()
    for j, part in enumerate(parts):
        assert torch.equal(part.grad, torch.full((rank, j), 10.0 * rank + j))


def test_one_to_four_ranks_equal_one_process(tmp_path: Path) -> None:
    run_ranks(in_small_groups, 4, tmp_path)


@pytest.mark.slow
def test_eight_ranks_equal_one_process(tmp_path: Path) -> None:
    run_ranks(in_a_group_of_eight, 8, tmp_path)


def test_unequal_parts_are_exchanged_and_their_gradients_back(tmp_path: Path) -> None:
    run_ranks(exchange_all, 3, tmp_path)
