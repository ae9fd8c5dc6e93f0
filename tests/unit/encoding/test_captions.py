import pytest
import torch

from builders import VOCABULARY
from contentv.base.errors import UserError
from contentv.encoding.captions import CaptionEncoder
from contentv.encoding.encoder import FeatureEncoder
from contentv.models.text import PromptEmbeds, TextTowers, embed, tokenize
from contentv.models.zoo import TEXT_LENGTHS, tiny_text_towers

CAPTIONS = ("a red circle", "a big blue square moves left")


@pytest.fixture(scope="module")
def towers() -> TextTowers:
    torch.manual_seed(0)
    made = tiny_text_towers(VOCABULARY)
    for encoder in (made.text_encoder, made.text_encoder_2, made.text_encoder_3):
        assert encoder is not None
        encoder.eval()
    return made


def captions(towers: TextTowers, most: int = 1024) -> CaptionEncoder:
    return CaptionEncoder(FeatureEncoder(towers=towers), text_lengths=TEXT_LENGTHS, most=most)


def whole(towers: TextTowers, *rows: tuple[str, str, str]) -> PromptEmbeds:
    """As the pipeline embeds prompts of three encoders."""
    length = TEXT_LENGTHS[0]
    columns = [list(column) for column in zip(*rows, strict=True)]
    with torch.no_grad():
        return embed(towers, tokenize(towers, *columns, max_length_3=length))


@pytest.mark.parametrize(
    "row",
    [
        (CAPTIONS[0], CAPTIONS[0], CAPTIONS[0]),
        ("", CAPTIONS[0], CAPTIONS[0]),
        (CAPTIONS[0], "", CAPTIONS[0]),
        (CAPTIONS[0], CAPTIONS[0], ""),
        ("", "", ""),
    ],
)
def test_each_tower_reads_what_it_is_given_as_in_the_pipeline(
    towers: TextTowers, row: tuple[str, str, str]
) -> None:
    rows = (row, (CAPTIONS[1],) * 3)
    found = captions(towers)(*zip(*rows, strict=True))
    expected = whole(towers, *rows)
    assert torch.allclose(found.sequence, expected.sequence, atol=1e-5)
    assert torch.allclose(found.pooled, expected.pooled, atol=1e-5)
    assert not found.sequence.requires_grad
    plain = whole(towers, (CAPTIONS[0],) * 3)
    dropped = "" in row
    assert torch.allclose(found.sequence[:1], plain.sequence, atol=1e-5) != dropped


def test_a_caption_is_embedded_once_and_without_its_neighbours(
    towers: TextTowers, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    assert towers.text_encoder_3 is not None
    real = towers.text_encoder_3.forward

    def count(*args: object, **kwargs: object) -> object:
        calls.append(1)
        return real(*args, **kwargs)

    monkeypatch.setattr(towers.text_encoder_3, "forward", count)
    encoder = captions(towers)
    together = encoder(CAPTIONS, CAPTIONS, CAPTIONS)
    alone = encoder(CAPTIONS[:1], CAPTIONS[:1], CAPTIONS[:1])
    assert len(calls) == 2
    assert torch.equal(together.sequence[:1], alone.sequence)
    forgetful = captions(towers, most=1)
    again = forgetful(CAPTIONS, CAPTIONS, CAPTIONS)
    assert torch.equal(again.sequence, together.sequence)
    assert len(forgetful._known) == 1


def test_training_in_bfloat16_leaves_the_towers_arithmetic_alone(towers: TextTowers) -> None:
    rows = ((CAPTIONS[0],),) * 3
    plain = captions(towers)(*rows)
    with torch.autocast("cpu", torch.bfloat16):
        inside = captions(towers)(*rows)
    assert torch.equal(plain.sequence, inside.sequence)


def test_t5_reads_the_shortest_length_that_fits_the_batch(towers: TextTowers) -> None:
    encoder = captions(towers)
    long = ("a big " * 20,)
    short, longer = encoder(*[("a",)] * 3), encoder(*[long] * 3)
    assert longer.sequence.shape[1] - short.sequence.shape[1] == TEXT_LENGTHS[-1] - TEXT_LENGTHS[0]


def test_a_model_without_text_encoders_is_refused() -> None:
    with pytest.raises(UserError, match="has no CLIP text encoder"):
        CaptionEncoder(
            FeatureEncoder(towers=TextTowers(None, None, None, None, None, None)),
            text_lengths=(16,),
        )
