from contentv.data.toycaptions import ToyCaptionBatches
from contentv.toyworld.captions import parse
from contentv.toyworld.scene import HELD_OUT, VALUES

BATCHES = ToyCaptionBatches(0, "text_encoders", short=16, long=4)


def test_targets_are_the_facts_that_the_captions_state() -> None:
    for step in range(6):
        batch = BATCHES(step)
        assert len(batch.captions) == len(batch.keys) == (4 if step % 3 == 2 else 16)
        for text, row in zip(batch.captions, batch.facts.tolist(), strict=True):
            said = {
                name: values[place]
                for (name, values), place in zip(VALUES.items(), row, strict=True)
                if place < len(values)
            }
            assert said == parse(text)


def test_long_ones_state_every_fact_of_their_scene() -> None:
    rows = BATCHES(2).facts
    unsaid = [len(values) for values in VALUES.values()]
    always = [list(VALUES).index(name) for name in ("shape", "colour", "background", "motion")]
    assert all(rows[:, place].max() < unsaid[place] for place in always)


def test_no_caption_names_a_held_out_pair() -> None:
    facts = [parse(text) for step in range(60) for text in BATCHES(step).captions]
    pairs = {(found.get("colour"), found.get("shape")) for found in facts}
    pairs |= {(found.get("colour2"), found.get("shape2")) for found in facts}
    assert len(pairs) > 15
    assert not pairs & HELD_OUT


def test_a_batch_is_a_function_of_the_step() -> None:
    again = ToyCaptionBatches(0, "text_encoders", short=16, long=4)
    assert again(5).captions == BATCHES(5).captions
    assert again(4).captions != BATCHES(5).captions
