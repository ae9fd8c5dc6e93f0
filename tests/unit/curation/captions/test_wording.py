import pytest
from hypothesis import given
from hypothesis import strategies as st

from contentv.curation.captions.wording import clean, fault, repeated


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("The video shows a dog that runs.", "A dog that runs."),
        ("This video clip depicts two men at a table.", "Two men at a table."),
        ("In the video, we see a red car.", "A red car."),
        ("In this scene, there is a lake.", "A lake."),
        ("The footage begins with a close shot.", "A close shot."),
        ('"A dog runs."', "A dog runs."),
        ("  A dog\n\nruns. ", "A dog runs."),
        ("The clip of his career.", "The clip of his career."),
        ("The scene changes.", "The scene changes."),
        ("Videographers walk.", "Videographers walk."),
    ],
)
def test_stock_openings_go_and_nothing_else(said: str, kept: str) -> None:
    assert clean(said) == kept


@given(st.text())
def test_cleaning_twice_is_cleaning_once_unless_an_opening_hides_another(text: str) -> None:
    once = clean(text)
    assert once == " ".join(once.split())
    assert len(once) <= len(text) + 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("A dog runs over the grass", ""),
        ("I'm sorry, but I cannot describe this video for you", "refused"),
        ("As an AI model, there is little to say about it", "refused"),
        ("A dog", "too_short"),
        (" ".join(f"word{i}" for i in range(50)), "too_long"),
        ("a dog and a cat run " * 6, "repeats"),
        ("一只棕色的小狗 跑过 湿润的 草地 停在 篱笆旁", "language"),
        ("Ein Hund läuft über die Wiese", ""),
        ("1 2 3 4 5 6", "language"),
    ],
)
def test_a_text_that_is_no_caption_is_named(text: str, reason: str) -> None:
    assert fault(text, (3, 40)) == reason


def test_a_person_who_cannot_see_is_no_refusal() -> None:
    assert fault("A man cannot see the ball that flies over him", (3, 40)) == ""


def test_repetition_is_the_part_of_groups_of_four_seen_before() -> None:
    assert repeated("a b c d") == 0
    assert repeated("a b c") == 0
    assert repeated("a b c d a b c d") == pytest.approx(1 / 5)
