import torch

from contentv.data.toycaptions import ToyCaptionBatches
from contentv.models.zoo import TEXT_LENGTHS, tiny_text_towers
from contentv.toyworld.captions import vocabulary
from contentv.toyworld.scene import VALUES
from contentv.training.objectives.text_encoder import TextEncoderObjective

NUM_VALUES = [len(values) for values in VALUES.values()]
BATCHES = ToyCaptionBatches(0, "text_encoders", short=8, long=3)
SHORT, LONG = BATCHES(0), BATCHES(2)


def objective() -> TextEncoderObjective:
    torch.manual_seed(0)
    towers = tiny_text_towers(vocabulary())
    return TextEncoderObjective(towers, num_values=NUM_VALUES, text_lengths=TEXT_LENGTHS)


def learning(text: TextEncoderObjective) -> set[str]:
    names = ("text_encoder", "text_encoder_2", "text_encoder_3")
    return {
        name
        for name in names
        if any(p.grad is not None and p.grad.any() for p in getattr(text.towers, name).parameters())
    }


def test_values_are_one_per_caption_and_no_better_than_chance_at_first() -> None:
    losses = objective().losses(SHORT)
    assert losses["loss"].shape == losses["right"].shape == (8,)
    chance = sum(torch.log(torch.tensor(number + 1.0)) for number in NUM_VALUES) / len(NUM_VALUES)
    # Read twice: from T5's tokens and from CLIP's pooled vectors.
    assert 0.7 * 2 * chance < losses["loss"].mean() < 2 * 2 * chance


def test_short_captions_teach_all_towers_and_long_ones_t5_alone() -> None:
    short, long = objective(), objective()
    short.losses(SHORT)["loss"].sum().backward()
    long.losses(LONG)["loss"].sum().backward()
    assert learning(short) == {"text_encoder", "text_encoder_2", "text_encoder_3"}
    assert learning(long) == {"text_encoder_3"}


def test_a_few_captions_are_learned_by_heart() -> None:
    text = objective()
    optimizer = torch.optim.AdamW(text.networks.parameters(), lr=3e-3)
    for _ in range(40):
        losses = text.losses(SHORT)
        losses["loss"].mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses["right"].mean() > 0.95
