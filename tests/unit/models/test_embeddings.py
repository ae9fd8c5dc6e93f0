import pytest
import torch

from contentv.base.errors import UserError
from contentv.models.embeddings import (
    MAX_CACHED_GRIDS,
    Grid,
    PatchEmbed3D,
    RotaryPositions,
    SinCosPositions,
    rotate,
)

CPU = torch.device("cpu")


def test_patches_are_those_of_a_convolution_per_frame() -> None:
    embed = PatchEmbed3D(in_channels=4, embed_dim=6, patch_size=2)
    latents = torch.randn(2, 4, 3, 8, 6)
    tokens = embed(latents)
    assert tokens.shape == (2, 3, 4, 3, 6)
    frame = embed.proj(latents[1, :, 2][None])[0]
    torch.testing.assert_close(tokens[1, 2], frame.permute(1, 2, 0))


def test_odd_sides_lose_their_last_row_and_column() -> None:
    embed = PatchEmbed3D(in_channels=4, embed_dim=6, patch_size=2)
    latents = torch.randn(1, 4, 2, 7, 9)
    assert embed.grid(latents) == Grid(2, 3, 4)
    assert torch.equal(embed(latents), embed(latents[..., :6, :8]))


def test_tokens_are_laid_out_without_a_copy() -> None:
    embed = PatchEmbed3D(in_channels=16, embed_dim=32, patch_size=2)
    assert embed(torch.randn(1, 16, 2, 8, 8)).flatten(1, 3).is_contiguous()


def test_width_stands_before_height_and_space_goes_in_steps_of_two() -> None:
    table = SinCosPositions(32).add(torch.zeros(1, 3, 5, 4, 32, dtype=torch.float64))[0]
    fastest = 0  # sine of the highest frequency of each axis
    assert table[2, 0, 0, fastest] == pytest.approx(torch.tensor(2.0).double().sin().item())
    x, y = 8, 20
    assert table[0, 0, 3, x] == pytest.approx(torch.tensor(6.0).double().sin().item())
    assert table[0, 4, 0, y] == pytest.approx(torch.tensor(8.0).double().sin().item())
    assert table[0, 4, 0, x] == 0


def test_positions_are_computed_once_per_grid() -> None:
    positions = SinCosPositions(32)
    first = positions.axes(Grid(2, 3, 4), torch.float32, CPU)
    assert positions.axes(Grid(2, 3, 4), torch.float32, CPU) is first
    assert positions.axes(Grid(2, 3, 4), torch.bfloat16, CPU) is not first
    for frames in range(3, 3 + MAX_CACHED_GRIDS):
        positions.axes(Grid(frames, 3, 4), torch.float32, CPU)
    assert len(positions._axes) == MAX_CACHED_GRIDS


def test_positions_cached_in_inference_serve_training() -> None:
    positions = RotaryPositions(16)
    with torch.inference_mode():
        positions.rotation(Grid(1, 2, 2), CPU)
    heads = torch.randn(1, 4, 1, 16, requires_grad=True)
    rotate(heads, positions.rotation(Grid(1, 2, 2), CPU)).sum().backward()
    assert heads.grad is not None


def test_rotary_attention_sees_distances_only() -> None:
    """Moving two tokens by the same way leaves their product as it is."""
    grid = Grid(4, 5, 6)
    rotation = RotaryPositions(16).rotation(grid, CPU)
    query, key = torch.randn(2, 16)

    def product(first: tuple[int, int, int], second: tuple[int, int, int]) -> torch.Tensor:
        at = [t * 30 + y * 6 + x for t, y, x in (first, second)]
        pair = rotate(torch.stack([query, key])[None, :, None], rotation[:, at])[0, :, 0]
        return pair[0] @ pair[1]

    torch.testing.assert_close(product((0, 0, 0), (1, 2, 3)), product((2, 2, 1), (3, 4, 4)))
    assert product((0, 0, 0), (0, 1, 0)) != product((0, 0, 0), (0, 0, 1))


def test_rotation_keeps_lengths() -> None:
    heads = torch.randn(2, 8, 3, 32)
    turned = rotate(heads, RotaryPositions(32).rotation(Grid(2, 2, 2), CPU))
    torch.testing.assert_close(turned.norm(dim=-1), heads.norm(dim=-1))


@pytest.mark.parametrize("positions", [SinCosPositions, RotaryPositions])
def test_widths_that_do_not_split_are_refused(
    positions: type[SinCosPositions] | type[RotaryPositions],
) -> None:
    with pytest.raises(UserError, match="multiple of 16"):
        positions(24)
