from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from contentv.evaluation.render import to_html, to_markdown
from contentv.evaluation.report import Report, build_model_report, build_report, compare
from contentv.evaluation.scoring import Row
from contentv.evaluation.sheet import Cell, strip, write_sheet
from contentv.evaluation.statistics import Pairs, wilson


def row(
    number: int,
    *,
    seen: str = "circle",
    psnr: float | None = None,
    fault: str | None = None,
) -> Row:
    """Question `number` asks for a red circle; every second one is held out."""
    asked = {"colour": "red", "shape": "circle"}
    return Row(
        name=f"q{number}",
        split="held_out" if number % 2 else "seen",
        kind="long" if number % 4 > 1 else "short",
        family="move" if number < 2 else "still",
        prompt="a red circle",
        seed=number,
        asked=asked,
        seen={"colour": "red", "shape": seen},
        right={"colour": True, "shape": seen == "circle"},
        psnr=psnr,
        fault=fault,
        seconds=0.5,
    )


FIRST = [row(0), row(1, seen="square"), row(2), row(3)]
SECOND = [row(0), row(1, seen="square"), row(2, seen="cross"), row(3, seen="square")]

MARKDOWN = """\
# contentv evaluate toybench

4 prompts, seed 5, 2026-11-21 10:00Z.

Shares with 95 % intervals (Wilson) and counts.

## tiny

Hash abc. 4 clips, 0.50 s each.

Settings: suite toybench, sampling.steps 20.

### All facts right

|  | all | short | long |
| --- | --- | --- | --- |
| all | 0.750 [0.301, 0.954] 3/4 | 0.500 [0.095, 0.905] 1/2 | 1.000 [0.342, 1.000] 2/2 |
| seen | 1.000 [0.342, 1.000] 2/2 | 1.000 [0.207, 1.000] 1/1 | 1.000 [0.207, 1.000] 1/1 |
| held_out | 0.500 [0.095, 0.905] 1/2 | 0.000 [0.000, 0.793] 0/1 | 1.000 [0.207, 1.000] 1/1 |

### All facts right, by what happens

|  | all | seen | held_out |
| --- | --- | --- | --- |
| move | 0.500 [0.095, 0.905] 1/2 | 1.000 [0.207, 1.000] 1/1 | 0.000 [0.000, 0.793] 0/1 |
| still | 1.000 [0.342, 1.000] 2/2 | 1.000 [0.207, 1.000] 1/1 | 1.000 [0.207, 1.000] 1/1 |
| zoom | - | - | - |
| spin | - | - | - |
| two | - | - | - |
| pan | - | - | - |

### Each fact, where it was asked for

|  | all | seen | held_out |
| --- | --- | --- | --- |
| colour | 1.000 [0.510, 1.000] 4/4 | 1.000 [0.342, 1.000] 2/2 | 1.000 [0.342, 1.000] 2/2 |
| shape | 0.750 [0.301, 0.954] 3/4 | 1.000 [0.342, 1.000] 2/2 | 0.500 [0.095, 0.905] 1/2 |

### shape: asked (lines) and seen (columns)

|  | circle | square |
| --- | --- | --- |
| circle | 3 | 1 |
"""


def report(*models: list[Row], suite: str = "toybench") -> Report:
    settings = {"suite": suite, "sampling": {"steps": 20, "flow_shift": None}}
    names = ("tiny", "other")
    parts = [
        build_model_report(name, "abc", settings, rows)
        for name, rows in zip(names, models, strict=False)
    ]
    whole = build_report(parts, models, suite=suite, seed=5, place="out/report.html")
    return whole.model_copy(update={"created": datetime(2026, 11, 21, 10, tzinfo=UTC)})


def test_markdown() -> None:
    assert to_markdown(report(FIRST), [[]], beside=Path()) == MARKDOWN


def test_summary_for_the_terminal() -> None:
    assert str(report(FIRST)).splitlines() == [
        "tiny: all facts right",
        "  all       0.750 [0.301, 0.954] 3/4",
        "  seen      1.000 [0.342, 1.000] 2/2",
        "  held_out  0.500 [0.095, 0.905] 1/2",
        "out/report.html",
    ]


def test_counts_and_intervals_agree_with_the_rows() -> None:
    (model,) = report(FIRST).models
    part = model.groups.lines["all"][0]
    assert part is not None
    assert (part.right, part.total, part.value) == (3, 4, 0.75)
    assert (part.low, part.high) == wilson(3, 4)
    assert model.confusions["shape"] == {"circle": {"circle": 3, "square": 1}}
    assert model.confusions["colour"] == {"red": {"red": 4}}


def test_comparison_counts_pairs() -> None:
    paired = compare(FIRST, SECOND)
    assert paired.pairs == Pairs(both=1, first_only=2, second_only=0, neither=1)
    assert paired.difference == 0.5
    assert paired.p_value == 0.5
    assert paired.low < 0.5 < paired.high
    whole = report(FIRST, SECOND)
    assert whole.comparison is not None
    assert whole.comparison["all"] == paired
    assert set(whole.comparison) == {"all", "seen", "held_out"}
    text = to_markdown(whole, [[], []], beside=Path())
    assert "| all | +0.500 [" in text
    assert "| 1 | 2 | 0 | 1 |" in text


def test_models_are_compared_on_the_same_questions_only() -> None:
    with pytest.raises(AssertionError):
        compare(FIRST, FIRST[::-1])


def test_one_split_has_no_other_lines() -> None:
    rows = [row(0), row(4)]
    (model,) = report(rows).models
    assert list(model.groups.lines) == ["seen"]
    assert model.groups.columns == ("all",)


def test_psnr_and_faults_are_said() -> None:
    rows = [row(0, psnr=31.0), row(1, psnr=29.0, fault="black in every pixel", seen="no video")]
    whole = report(rows, suite="autoencoder")
    (model,) = whole.models
    assert model.psnr is not None
    assert (model.psnr.value, model.psnr.lowest) == (30.0, 29.0)
    text = to_markdown(whole, [[]], beside=Path())
    assert "PSNR 30.00 dB" in text
    assert "Clips without a video: 1; the first is q1: black in every pixel." in text
    assert "PSNR 30.00 dB" in str(whole)


def test_report_survives_its_file() -> None:
    whole = report(FIRST, SECOND)
    assert Report.model_validate_json(whole.model_dump_json()) == whole


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "img"):
            self.open.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_html_is_whole_and_needs_nothing_beside_it(tmp_path: Path) -> None:
    cell = Cell(strip(np.zeros((5, 64, 64, 3), np.uint8)), "a <red> circle")
    sheet = write_sheet(tmp_path / "model" / "samples.png", [cell])
    whole = report([row(0), row(1, seen="<b>")])
    text = to_html(whole, [[sheet]])
    tags = Tags()
    tags.feed(text)
    assert tags.open == []
    assert [source[:22] for source in tags.sources] == ["data:image/png;base64,"]
    assert "<b>" not in text
    assert "&lt;b&gt;" in text
    assert "(model/samples.png)" in to_markdown(whole, [[sheet]], beside=tmp_path)
