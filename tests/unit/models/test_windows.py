"""Sliding tiles: grids and tiles of odd sizes against masks written out token by token."""

from itertools import product

import pytest
import torch
import torch.nn.functional as F
from diffusers import FirstBlockCacheConfig
from torch import Tensor
from torch.distributed._tools.mem_tracker import MemTracker
from torch.nn.attention.flex_attention import flex_attention

from builders import random_transformer
from contentv.base.errors import UserError
from contentv.models.embeddings import Grid
from contentv.models.transformer import ContentVTransformer3DModel
from contentv.models.windows import TileLayout, attended_share, stretches

CPU = torch.device("cpu")
EVERYTHING = (99, 99, 99)
# Grid, text tokens, window, tile: tiles that fit, that do not, larger than the grid, even windows.
CASES = [
    (Grid(4, 4, 4), 3, (1, 1, 1), (2, 2, 2)),
    (Grid(5, 7, 6), 9, (2, 3, 1), (2, 3, 4)),
    (Grid(3, 5, 11), 1, (1, 2, 3), (2, 2, 2)),
    (Grid(1, 7, 5), 0, (3, 1, 3), (4, 2, 1)),
    (Grid(7, 3, 13), 130, (3, 9, 2), (1, 2, 3)),
]


def softmax_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
) -> Tensor:
    heads = [t.transpose(1, 2) for t in (query, key, value)]
    return F.scaled_dot_product_attention(*heads, attn_mask=mask).transpose(1, 2)


def sees(position: int, key: int, *, length: int, tile: int, window: int) -> bool:
    """Whether a token may attend to another along one axis, by the words of the definition."""
    last_tile = (length - 1) // tile
    reach = min(window, last_tile + 1)
    first = position // tile - reach // 2
    while first < 0:
        first += 1
    while first + reach - 1 > last_tile:
        first -= 1
    return first <= key // tile < first + reach


def mask_in_raster_order(
    grid: Grid, text: int, window: tuple[int, ...], tile: tuple[int, ...]
) -> Tensor:
    tokens = list(product(*map(range, grid)))
    axes = list(zip(grid, tile, window, strict=True))
    mask = torch.ones(len(tokens) + text, len(tokens) + text, dtype=torch.bool)
    for (i, query), (j, key) in product(enumerate(tokens), enumerate(tokens)):
        mask[i, j] = all(
            sees(q, k, length=length, tile=size, window=reach)
            for q, k, (length, size, reach) in zip(query, key, axes, strict=True)
        )
    return mask


def inputs(tokens: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 2, tokens, 2, 8, generator=generator).unbind()
    return query, key, value


def in_order(layout: TileLayout, tensor: Tensor) -> Tensor:
    video = tensor[:, : len(layout.order)].index_select(1, layout.order)
    return torch.cat([video, tensor[:, len(layout.order) :]], dim=1)


def in_raster(layout: TileLayout, tensor: Tensor) -> Tensor:
    video = tensor[:, : len(layout.order)].index_select(1, layout.places)
    return torch.cat([video, tensor[:, len(layout.order) :]], dim=1)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("grad", [True, False])
def test_boxes_equal_a_mask(case: tuple, *, grad: bool) -> None:  # type: ignore[type-arg]
    grid, text, window, tile = case
    layout = TileLayout(grid, text, window=window, tile=tile, device=CPU)
    qkv = inputs(len(layout.order) + text)
    expected = softmax_attention(*qkv, mask_in_raster_order(grid, text, window, tile))
    with torch.set_grad_enabled(grad):
        mixed = layout.attend(*(in_order(layout, t) for t in qkv), softmax_attention)
    torch.testing.assert_close(in_raster(layout, mixed), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings("ignore:flex_attention called without")
def test_flex_attention_equals_the_same_mask(case: tuple) -> None:  # type: ignore[type-arg]
    grid, text, window, tile = case
    layout = TileLayout(grid, text, window=window, tile=tile, device=CPU)
    qkv = inputs(len(layout.order) + text)
    expected = softmax_attention(*qkv, mask_in_raster_order(grid, text, window, tile))
    heads = [in_order(layout, t).transpose(1, 2) for t in qkv]
    mixed = flex_attention(*heads, block_mask=layout.block_mask).transpose(1, 2)
    torch.testing.assert_close(in_raster(layout, mixed), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("case", [*CASES, (Grid(8, 12, 10), 40, (1, 3, 1), (2, 4, 5))])
def test_blocks_hold_all_that_the_mask_allows_and_full_ones_nothing_else(case: tuple) -> None:  # type: ignore[type-arg]
    """Uncompiled flex attention ignores the blocks, so they are looked at by themselves."""
    grid, text, window, tile = case
    layout = TileLayout(grid, text, window=window, tile=tile, device=CPU)
    tokens = len(layout.order) + text
    index = torch.arange(tokens)
    allowed = layout.block_mask.mask_mod(index, index, index[:, None], index[None])
    some, full = layout._blocks()
    size = 128
    for i, j in product(range(len(some)), repeat=2):
        part = allowed[i * size : (i + 1) * size, j * size : (j + 1) * size]
        assert bool(some[i, j]) == bool(part.any())
        assert bool(full[i, j]) == (part.shape == (size, size) and bool(part.all()))
    assert torch.equal(layout.block_mask.to_dense()[0, 0] > 0, some)


@pytest.mark.slow
def test_compiled_flex_attention_equals_boxes() -> None:
    """Compiled, flex attention skips blocks: needs a C++ compiler, half a minute."""
    layout = TileLayout(Grid(8, 12, 10), 40, window=(1, 3, 1), tile=(2, 4, 5), device=CPU)
    qkv = inputs(960 + 40)
    with torch.no_grad():
        skipped = layout.flex_attend(*qkv)
        expected = layout.attend(*(t.clone() for t in qkv), softmax_attention)
    torch.testing.assert_close(skipped, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_the_share_counts_what_the_mask_allows(case: tuple) -> None:  # type: ignore[type-arg]
    grid, text, window, tile = case
    allowed = mask_in_raster_order(grid, text, window, tile)
    share = attended_share(grid, text, window=window, tile=tile)
    assert share == pytest.approx(allowed.double().mean().item())
    assert attended_share(grid, text, window=EVERYTHING, tile=tile) == 1.0


def test_every_token_sees_as_many_whole_tiles() -> None:
    for part in stretches(24, 4, 3):
        assert part.key_last - part.key_first == 12
    assert [(part.first, part.last) for part in stretches(24, 4, 3)] == [
        (0, 8),
        (8, 12),
        (12, 16),
        (16, 24),
    ]


def model_inputs(frames: int = 5, height: int = 14, width: int = 10) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "hidden_states": torch.randn(2, 16, frames, height, width, generator=generator),
        "encoder_hidden_states": torch.randn(2, 7, 128, generator=generator),
        "pooled_projections": torch.randn(2, 96, generator=generator),
        "timestep": torch.tensor([700.0, 20.0]),
    }


def velocity(model: ContentVTransformer3DModel, **inputs: Tensor) -> Tensor:
    with torch.no_grad():
        return model(**(inputs or model_inputs())).sample


@pytest.mark.parametrize("positions", ["ape", "rope"])
def test_a_window_over_everything_changes_nothing(positions: str) -> None:
    model = random_transformer(pos_embed_type=positions)
    expected = velocity(model)
    model.enable_window_attention(EVERYTHING, (2, 3, 2))
    torch.testing.assert_close(velocity(model), expected, atol=1e-5, rtol=1e-5)
    model.enable_window_attention((1, 1, 1), (2, 3, 2))
    assert (velocity(model) - expected).abs().max() > 1e-3
    model.disable_window_attention()
    assert torch.equal(velocity(model), expected)


def test_a_token_does_not_hear_of_another_window() -> None:
    """One block, one frame in each window: a frame's velocity depends on that frame and the text.

    In a dense block it depends on all.
    """
    model = random_transformer(blocks=1)
    given = model_inputs()
    changed = {**given, "hidden_states": given["hidden_states"].clone()}
    changed["hidden_states"][:, :, 4] += 1.0
    for dense_layers, equal in (((), True), ((0,), False), ((-1,), False)):
        model.enable_window_attention((1, 9, 9), (1, 2, 2), dense_layers=dense_layers)
        before, after = velocity(model, **given), velocity(model, **changed)
        assert torch.equal(before[:, :, :4], after[:, :, :4]) == equal
        assert not torch.equal(before[:, :, 4], after[:, :, 4])


def test_first_steps_are_dense_where_asked() -> None:
    model = random_transformer()
    dense = velocity(model)
    model.enable_window_attention((1, 1, 1), (2, 2, 2))
    sparse = velocity(model)
    model.enable_window_attention((1, 1, 1), (2, 2, 2), dense_steps=2)
    for step, expected in ((0, dense), (1, dense), (2, sparse), (0, dense)):
        model.begin_step(step)
        torch.testing.assert_close(velocity(model), expected, atol=1e-5, rtol=1e-5)


def test_a_cache_may_carry_features_from_a_dense_step_to_a_windowed_one() -> None:
    """At a threshold that always hits, step 2 is made of step 1's features: in the same order."""
    model = random_transformer(blocks=4)
    model.enable_window_attention((1, 1, 1), (2, 3, 2), dense_steps=1)
    model.enable_cache(FirstBlockCacheConfig(threshold=1e9))
    with model.cache_context("cond"):
        model.begin_step(0)
        first = velocity(model)
        model.begin_step(1)
        second = velocity(model)
    # What differs is the first block's own attention; a wrong order would be of the size of 1.
    assert (second - first).abs().max() < 0.5 * first.abs().max()


def peak(model: ContentVTransformer3DModel, inputs: dict[str, Tensor]) -> int:
    """Bytes at the highest point of a forward, weights and inputs included."""
    velocity(model, **inputs)  # what is laid out once is not counted
    tracker = MemTracker()
    tracker.track_external(model, *inputs.values())
    with tracker:
        velocity(model, **inputs)
    return tracker.get_tracker_snapshot("peak")[CPU]["Total"]


def test_windows_need_no_more_memory() -> None:
    """With chunked feed-forwards attention is the highest point."""
    model = random_transformer()
    model.enable_forward_chunking(64)
    inputs = model_inputs(frames=5, height=24, width=24)
    dense = peak(model, inputs)
    model.enable_window_attention((1, 2, 2), (1, 3, 3))
    assert peak(model, inputs) <= dense


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"window": (0, 1, 1)}, r"window=\(0, 1, 1\): must be three positive numbers"),
        ({"tile": (2, 2)}, r"tile=\(2, 2\): must be three positive numbers"),
        ({"dense_layers": (1, 2)}, r"dense_layers=\[2\]: there are blocks 0 to 1"),
        ({"dense_steps": -1}, "dense_steps=-1: must be 0 or more"),
        ({"kernel": "triton"}, "kernel='triton': must be 'boxes' or 'flex'"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, object], message: str) -> None:
    model = random_transformer()
    with pytest.raises(UserError, match=message):
        model.enable_window_attention(**{"window": (1, 1, 1), "tile": (2, 2, 2), **settings})
    assert model._windows is None
