"""Causal convolutions frame by frame, and two frames for the price of four thirds."""

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from contentv.models.vae_frames import _CausalConv

CHANNELS = 6


def causal_conv(kernel: int | tuple[int, int, int]) -> WanCausalConv3d:
    torch.manual_seed(0)
    padding = 1 if kernel == 3 else (1, 0, 0)
    return WanCausalConv3d(CHANNELS, 2 * CHANNELS, kernel, padding=padding)


@torch.no_grad()
def in_calls(conv: WanCausalConv3d, video: Tensor, calls: list[int]) -> Tensor:
    """The video [b c t h w] through our convolution, some frames a call."""
    ours = _CausalConv(conv, len(video))
    results = []
    for piece in video.split(calls, dim=2):
        frames = piece.permute(2, 0, 1, 3, 4).flatten(0, 1)
        results.append(ours(frames.contiguous(memory_format=torch.channels_last)))
    return torch.cat(results).unflatten(0, (-1, len(video))).permute(1, 2, 0, 3, 4)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("kernel", [3, (3, 1, 1)])
@pytest.mark.parametrize(
    "calls", [[1] * 7, [1, 2, 2, 2], [1, 1, 4, 1], [7], [3, 4], [2, 2, 3], [1, 6]]
)
def test_frames_may_come_in_any_portions(
    batch: int, kernel: int | tuple[int, int, int], calls: list[int]
) -> None:
    conv = causal_conv(kernel)
    video = torch.randn(batch, CHANNELS, 7, 4, 5)
    with torch.no_grad():
        expected = conv(video)
    torch.testing.assert_close(in_calls(conv, video, calls), expected, atol=1e-5, rtol=1e-5)


def test_two_frames_together_cost_four_convolutions_not_six() -> None:
    conv, video = causal_conv(3), torch.randn(1, CHANNELS, 8, 4, 5)
    costs = []
    for later in ([1] * 6, [2] * 3):
        with FlopCounterMode(display=False) as counter:
            in_calls(conv, video, [1, 1, *later])
        costs.append(counter.get_total_flops())
    first_two = costs[0] * 3 // 21  # one convolution, then two; three for each of six frames
    assert (costs[1] - first_two) * 6 == (costs[0] - first_two) * 4
