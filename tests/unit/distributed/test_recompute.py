from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from contentv.distributed.config import RecomputeConfig
from contentv.distributed.recompute import recompute_blocks
from contentv.models.transformer import ContentVTransformerBlock

BLOCKS = 4


class Attentions(TorchDispatchMode):
    """Counts how often attention is really computed."""

    count = 0

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        self.count += "attention" in str(func) and "backward" not in str(func)
        return func(*args, **(kwargs or {}))


def run(config: RecomputeConfig) -> tuple[int, list[Tensor]]:
    """Attentions computed in a forward and backward, and all gradients."""
    torch.manual_seed(0)
    blocks = nn.ModuleList(
        ContentVTransformerBlock(num_heads=2, head_dim=8, qk_norm=True, is_last=False)
        for _ in range(BLOCKS)
    ).double()
    video, text = torch.randn(2, 5, 16).double(), torch.randn(2, 3, 16).double()
    temb = torch.randn(2, 16).double()
    recompute_blocks(blocks, config)
    with Attentions() as attentions:
        for block in blocks:
            text, video = block(video, text, temb)
        (video.square().sum() + text.square().sum()).backward()
    return attentions.count, [p.grad for p in blocks.parameters() if p.grad is not None]


@pytest.mark.parametrize(
    ("config", "attentions"),
    [
        (RecomputeConfig(mode="full"), 2 * BLOCKS),
        (RecomputeConfig(mode="full", every=2), BLOCKS + 2),
        (RecomputeConfig(mode="full", every=3), BLOCKS + 2),
        (RecomputeConfig(mode="selective"), BLOCKS),
    ],
)
def test_gradients_are_the_same_bits_and_attention_runs_as_often_as_said(
    config: RecomputeConfig, attentions: int
) -> None:
    count, gradients = run(config)
    plain_count, plain = run(RecomputeConfig())
    assert (count, plain_count) == (attentions, BLOCKS)
    assert len(gradients) == len(plain) > 0
    assert all(torch.equal(a, b) for a, b in zip(gradients, plain, strict=True))


def test_names_of_weights_do_not_change() -> None:
    blocks = nn.ModuleList([nn.Linear(2, 2)])
    before = list(blocks.state_dict())
    recompute_blocks(blocks, RecomputeConfig(mode="full"))
    assert list(blocks.state_dict()) == before
    assert [name for name, _ in blocks.named_parameters()] == before
