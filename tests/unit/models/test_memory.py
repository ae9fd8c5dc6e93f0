import pytest
import torch
from torch import nn

from contentv.models.cost import TransformerSize, block_parameters, num_parameters
from contentv.models.memory import (
    block_linears,
    chunk_tokens,
    conditioning_parameters,
    forward_memory,
    modulation_linears,
    modulation_vectors,
    outer_parameters,
)
from contentv.models.modulation import modulation_parts
from contentv.models.transformer import ContentVTransformer3DModel, Modulation
from contentv.video.shapes import LatentShape

SIZE = TransformerSize()
SHAPE = LatentShape(32, 54, 96)


@pytest.fixture(scope="module")
def transformer() -> ContentVTransformer3DModel:
    with torch.device("meta"):
        return ContentVTransformer3DModel()


def linears(module: nn.Module) -> list[tuple[int, ...]]:
    return [tuple(m.weight.shape) for m in module.modules() if isinstance(m, nn.Linear)]


def test_linears_of_blocks_are_those_of_the_real_network(
    transformer: ContentVTransformer3DModel,
) -> None:
    counted = [*block_linears(SIZE), *modulation_linears(SIZE)]
    assert sorted(counted) == sorted(linears(transformer.transformer_blocks))


def test_modulation_is_counted_as_it_is(transformer: ContentVTransformer3DModel) -> None:
    parts = modulation_parts(transformer)
    modulations = [part for part in parts if isinstance(part, Modulation)]
    vectors = sum(modulation.num_vectors for modulation in modulations)
    assert modulation_vectors(SIZE) == SIZE.width * vectors
    in_blocks = sum(rows * columns + rows for rows, columns in modulation_linears(SIZE))
    assert in_blocks + conditioning_parameters(SIZE) == sum(
        parameter.numel() for part in parts for parameter in part.parameters()
    )


def test_blocks_and_what_is_outside_of_them_are_the_whole(
    transformer: ContentVTransformer3DModel,
) -> None:
    in_blocks = sum(p.numel() for p in transformer.transformer_blocks.parameters())
    assert outer_parameters(SIZE) == num_parameters(SIZE) - in_blocks
    first = transformer.transformer_blocks[0]
    assert block_parameters(SIZE) == sum(p.numel() for p in first.parameters())


def test_chunks_save_memory_until_attention_is_the_fullest_moment() -> None:
    chunk = chunk_tokens(SIZE, SHAPE)
    saved = forward(chunk)
    assert saved < 0.6 * forward(None)
    assert forward(chunk // 8) == saved
    assert forward(2 * chunk) > saved
    assert forward(SIZE.video_tokens(SHAPE)) == forward(None)


def test_a_batch_takes_memory_in_proportion() -> None:
    one, two = (
        forward_memory(SIZE, SHAPE, 333, samples=samples, itemsize=2, chunk=None)
        for samples in (1, 2)
    )
    assert two == pytest.approx(2 * one)


def forward(chunk: int | None) -> float:
    return forward_memory(SIZE, SHAPE, 333, samples=1, itemsize=2, chunk=chunk)
