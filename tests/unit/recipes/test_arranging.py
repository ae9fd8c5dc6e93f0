from pathlib import Path

import pytest

from contentv.base.errors import UserError
from contentv.base.files import write_json
from contentv.data.batching import tokens
from contentv.data.buckets import Buckets
from contentv.data.entries import Listing
from contentv.data.manifest import Clip
from contentv.distributed.config import ParallelConfig
from contentv.models.cost import TransformerSize
from contentv.pipelines.folder import GenerationDefaults
from contentv.recipes.arranging import layout_of, plan_stage, text_tokens
from contentv.recipes.config import ChainConfig
from contentv.recipes.contentv_8b import CONTENTV_8B

STAGE = CONTENTV_8B.stage("stage3")
TEXT = 333


def layout(
    world: int, node: int, *, recipe: ParallelConfig | None = None, **asked: int
) -> ParallelConfig:
    config = ChainConfig(data=Path("data"), model="model", **asked)  # type: ignore[arg-type]
    stage = STAGE.model_copy(update={"parallel": recipe})
    return layout_of("stage3", stage, config, world=world, node=node, num_heads=38)


@pytest.mark.parametrize(
    ("world", "node", "expected"),
    [(1, 1, (1, 1)), (8, 8, (1, 8)), (256, 8, (32, 8)), (4, 8, (1, 4)), (2, 1, (2, 1))],
)
def test_by_default_each_node_keeps_the_weights_once(
    world: int, node: int, expected: tuple[int, int]
) -> None:
    found = layout(world, node)
    assert (found.replicate, found.shard) == expected
    assert (found.sp, found.tp) == (1, 1)


def test_what_is_asked_for_goes_before_the_recipe() -> None:
    of_recipe = ParallelConfig(replicate=2, shard=2, sp=2)
    assert layout(8, 8, recipe=of_recipe) == of_recipe
    assert layout(8, 8, recipe=of_recipe, sp=8) == ParallelConfig(sp=8)


@pytest.mark.parametrize(
    ("world", "asked", "words"),
    [
        (8, {"shard": 3}, "shard=3: must divide 8 ranks; use 1, 2, 4 or 8"),
        (8, {"sp": 2}, "use shard=4"),
        (4, {"tp": 4}, "tp=4: must divide 38 heads; use 1, 2, 19 or 38"),
        (64, {"sp": 64}, "sp=64: each rank needs a head of its own"),
        (
            96,
            {"replicate": 12, "shard": 8},
            "must be a multiple of the 96 data groups (replicate x shard); change it, or use 1, 2,",
        ),
    ],
)
def test_a_layout_that_does_not_fit_is_refused(
    world: int, asked: dict[str, int], words: str
) -> None:
    with pytest.raises(UserError) as caught:
        layout(world, 8, **asked)
    assert words in str(caught.value)


def test_batches_cost_alike_as_far_as_memory_goes() -> None:
    shapes = Buckets(STAGE.buckets).shapes
    clips = [
        Clip(str(n), f"{n}.mp4", "video" if s.frames > 1 else "picture", "text",
             frames=s.frames, fps=24.0 if s.frames > 1 else 0.0, height=s.height, width=s.width)
        for n, s in enumerate(shapes)
    ]  # fmt: skip
    size = TransformerSize()
    listing = Listing("manifest", Path("clips"), clips)
    data = plan_stage("stage3", STAGE, listing, seed=0, size=size, text_tokens=TEXT)
    shelves = data.plan.shelves
    assert {shelf.bucket for shelf in shelves} == set(shapes)
    cost = max(shelf.cost for shelf in shelves)
    room = STAGE.room * (max(tokens(shelf.bucket) for shelf in shelves) + TEXT)
    for shelf in shelves:
        length = tokens(shelf.bucket) + TEXT
        assert shelf.batch * shelf.cost <= cost * (1 + 1e-9)
        assert shelf.batch * length <= room
        full = (shelf.batch + 1) * length > room
        assert full or shelf.batch * shelf.cost > 0.5 * cost
    steps = [data.plan(step) for step in (0, STAGE.video_first)]
    kinds = [{batch.bucket.frames == 1 for batch in step.batches} for step in steps]
    assert kinds == [{False}, {False, True}]
    assert all(len(step.batches) == STAGE.micro_batches for step in steps)


def test_text_is_as_long_as_the_model_reads(tmp_path: Path) -> None:
    write_json(tmp_path / "tokenizer" / "tokenizer_config.json", {"model_max_length": 77})
    assert text_tokens(tmp_path, GenerationDefaults(text_lengths=(64, 256))) == TEXT
