import pytest

from contentv.curation.scoring.bands import SourceBands, lines, static
from contentv.curation.scoring.boxes import flat
from contentv.curation.settings import TextSettings
from contentv.curation.step import Box

WIDE = 16 / 9
SETTINGS = TextSettings()
LOW = Box(0.3, 0.86, 0.3, 0.06)  # off the middle: that alone would make it a subtitle
CLEAN: list[list[Box]] = [[]] * 5


def bands(clip: list[list[Box]], *others: list[list[Box]]) -> list[Box]:
    return SourceBands([clip, *others], WIDE, SETTINGS).bands(clip)


def near(found: list[Box], expected: list[Box]) -> bool:
    """Equal but for rounding."""
    return flat(found) == pytest.approx(flat(expected))


def moved(box: Box, x: float = 0.0, y: float = 0.0, width: float = 0.0) -> Box:
    return Box(box.x + x, box.y + y, box.width + width, box.height)


def test_words_beside_each_other_are_one_line_and_columns_are_not() -> None:
    words = [Box(0.1, 0.8, 0.1, 0.06), Box(0.22, 0.805, 0.2, 0.06), Box(0.8, 0.8, 0.1, 0.06)]
    assert near(lines(words, WIDE, SETTINGS), [Box(0.1, 0.8, 0.32, 0.065), words[2]])


def test_lines_above_each_other_stay_apart() -> None:
    above = moved(LOW, y=-0.065)
    assert sorted(lines([LOW, above], WIDE, SETTINGS), key=lambda box: box.y) == [above, LOW]


def test_what_is_too_thick_is_no_line() -> None:
    assert lines([Box(0.1, 0.1, 0.5, 0.6)], WIDE, SETTINGS) == []
    assert lines([Box(0.1, 0.1, 0.05, 0.6)], WIDE, SETTINGS) != []  # written downwards


@pytest.mark.parametrize(("sightings", "is_band"), [(0, False), (1, False), (2, True), (5, True)])
def test_a_band_holds_text_in_two_of_five_samples(sightings: int, is_band: bool) -> None:
    clip = [[LOW]] * sightings + CLEAN[sightings:]
    assert near(bands(clip), [LOW] if is_band else [])


def test_two_of_three_samples_are_not_one_of_three() -> None:
    assert bands([[LOW], [], []]) == []
    assert near(bands([[LOW]]), [LOW])  # a picture: the text is in all that there is


def test_text_inside_the_picture_is_no_band() -> None:
    assert bands([[moved(LOW, y=-0.4)]] * 5) == []


def test_text_that_moves_across_levels_is_no_band() -> None:
    assert bands([[moved(LOW, y=-0.04 * i)] for i in range(3)] + CLEAN[:2]) == []


def test_another_text_in_the_same_place_is_a_subtitle() -> None:
    """Two of six samples are fewer than 40 %, but a text of another width was set there."""
    longer = moved(LOW, x=-0.1, width=0.2)
    clip = [[LOW], [longer], *CLEAN[:4]]
    assert near(bands(clip), [longer])
    assert bands([[LOW], [moved(LOW, x=0.2)], *CLEAN[:4]]) == []  # the same, passing by


def test_a_line_exactly_in_the_middle_is_a_subtitle() -> None:
    middle = moved(LOW, x=0.05)
    assert near(bands([[middle], *CLEAN]), [middle])
    assert bands([[moved(middle, x=0.03)], *CLEAN]) == []
    word = Box(0.48, 0.86, 0.04, 0.06)
    assert bands([[word], *CLEAN]) == []


def test_the_sources_band_makes_one_sighting_enough() -> None:
    one = [[LOW], *CLEAN]
    assert bands(one, one) == []
    assert near(bands(one, one, one), [LOW])
    assert bands(one, *[[[moved(LOW, y=-0.08 * i)], *CLEAN] for i in (1, 9)]) == []
    assert bands(one, one, one, *[CLEAN] * 20) == []  # less than a tenth of the source


def test_clips_without_text_have_no_band_in_a_source_with_one() -> None:
    assert bands(CLEAN, *[[[LOW]] * 5] * 3) == []


def test_the_sources_second_line_is_near_a_clips_band() -> None:
    above = moved(LOW, y=-0.065)
    source = SourceBands([[[LOW, above]] * 3] * 3, WIDE, SETTINGS)
    assert near(source.around([LOW]), [above, LOW])
    assert source.around([moved(LOW, y=-0.8)]) == []


def test_a_line_that_never_moves_is_static_wherever_it_is() -> None:
    line = moved(LOW, y=-0.4)
    trembling = moved(line, x=0.002)
    found = static([[line], [trembling], [], [line], [line]], SETTINGS)
    assert near(found, [moved(line, width=0.002)])
    assert static([[line], [], [], [line], [line]], SETTINGS) == []
    assert static([[moved(line, x=0.05 * i)] for i in range(5)], SETTINGS) == []
    assert static([[line]], SETTINGS) == []  # one picture says nothing of time
    assert static([], SETTINGS) == []
