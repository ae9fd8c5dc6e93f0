from dataclasses import replace

import pytest
import torch

from builders import VOCABULARY
from contentv.base.errors import UserError
from contentv.models.text import TextTowers, embed, fitting_length, tokenize
from contentv.models.zoo import tiny_text_towers

PROMPTS = ["a red circle moves left", "a big blue square"]


@pytest.fixture(scope="module")
def towers() -> TextTowers:
    torch.manual_seed(0)
    return tiny_text_towers(VOCABULARY)


def test_lengths(towers: TextTowers) -> None:
    tokens = tokenize(towers, PROMPTS, max_length_3=24)
    assert [tuple(ids.shape) for ids in tokens] == [(2, 16), (2, 16), (2, 24)]
    embeds = embed(towers, tokens)
    assert embeds.sequence.shape == (2, 16 + 24, 128)
    assert embeds.pooled.shape == (2, 96)


def test_clip_stands_side_by_side_before_t5(towers: TextTowers) -> None:
    tokens = tokenize(towers, PROMPTS, max_length_3=24)
    sequence, pooled = embed(towers, tokens)
    assert towers.text_encoder is not None
    clip = towers.text_encoder(tokens.ids_1, output_hidden_states=True)
    torch.testing.assert_close(sequence[:, :16, :48], clip.hidden_states[-2])
    torch.testing.assert_close(pooled[:, :48], clip.text_embeds)
    assert torch.equal(sequence[:, :16, 96:], torch.zeros(2, 16, 32))
    assert towers.text_encoder_3 is not None
    torch.testing.assert_close(sequence[:, 16:], towers.text_encoder_3(tokens.ids_3)[0])


def test_each_tower_may_read_its_own_text(towers: TextTowers) -> None:
    alike = tokenize(towers, PROMPTS, max_length_3=24)
    tokens = tokenize(towers, PROMPTS, ["a", "a"], ["big", "big"], max_length_3=24)
    assert torch.equal(tokens.ids_1, alike.ids_1)
    assert not torch.equal(tokens.ids_2, alike.ids_2)
    assert not torch.equal(tokens.ids_3, alike.ids_3)


def test_clip_skip_takes_an_earlier_layer(towers: TextTowers) -> None:
    tokens = tokenize(towers, PROMPTS, max_length_3=24)
    assert towers.text_encoder is not None
    clip = towers.text_encoder(tokens.ids_1, output_hidden_states=True)
    skipped = embed(towers, tokens, clip_skip=1).sequence
    torch.testing.assert_close(skipped[:, :16, :48], clip.hidden_states[-3])


def test_gradients_reach_every_tower(towers: TextTowers) -> None:
    tokens = tokenize(towers, PROMPTS, max_length_3=24)
    sequence, pooled = embed(towers, tokens)
    (sequence.square().mean() + pooled.square().mean()).backward()
    for tower in (towers.text_encoder, towers.text_encoder_2, towers.text_encoder_3):
        assert tower is not None
        assert all(p.grad is not None for p in tower.get_input_embeddings().parameters())


def test_without_t5_its_tokens_are_zeros(towers: TextTowers) -> None:
    clip_only = replace(towers, text_encoder_3=None, tokenizer_3=None)
    tokens = tokenize(clip_only, PROMPTS, max_length_3=24)
    with pytest.raises(UserError, match="sequence_width"):
        embed(clip_only, tokens)
    sequence = embed(replace(clip_only, sequence_width=128), tokens).sequence
    assert torch.equal(sequence[:, 16:], torch.zeros(2, 24, 128))


def test_without_clip_prompts_are_refused(towers: TextTowers) -> None:
    tokens = tokenize(towers, PROMPTS, max_length_3=24)
    with pytest.raises(UserError, match="prompt_embeds"):
        embed(replace(towers, text_encoder=None), tokens)
    with pytest.raises(UserError, match="prompt_embeds"):
        tokenize(replace(towers, tokenizer=None), PROMPTS, max_length_3=24)


@pytest.mark.parametrize(("words", "length"), [(1, 8), (7, 8), (8, 32), (500, 32)])
def test_smallest_length_that_fits(towers: TextTowers, words: int, length: int) -> None:
    """One token a word, and one that ends the text."""
    assert fitting_length(towers, ["red " * words], (8, 32)) == length
    assert fitting_length(replace(towers, tokenizer_3=None), ["red " * words], (8, 32)) == 8
