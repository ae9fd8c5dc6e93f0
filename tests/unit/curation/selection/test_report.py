import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from catalogues import random_catalogue, write_catalogue
from contentv.curation.engine.scan import uri_of
from contentv.curation.selection.charts import drawing, histogram
from contentv.curation.selection.questions import ReportConfig
from contentv.curation.selection.report import run
from contentv.curation.selection.select import catalogue, decide
from contentv.video.io import write_video
from policies import SCORES, WHOLE, policy_of, written

ODD = "<script>alert(1)</script>\"'&\n"


class Page(HTMLParser):
    """What a browser would find: tags left open, pictures, words, and addresses."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.words = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for key, value in attrs if key in ("src", "href")]
        if tag not in ("meta", "img", "br"):
            self.stack.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


def page_of(folder: Path, **content: object) -> tuple[Page, str]:
    policy = written(folder, policy_of(**content))
    result = run(ReportConfig(catalogue=folder, policy=str(policy), thumbnails=6))
    page = Page(result.path.read_text(encoding="utf-8"))
    assert page.stack == []
    assert "script" not in page.tags
    assert all(source.startswith("data:image/jpeg;base64,") for source in page.sources)
    return page, str(result)


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of 25 grey frames, brighter and brighter."""
    path = tmp_path_factory.mktemp("footage") / "100% grey?.mp4"
    write_video(path, (np.full((36, 64, 3), 10 * i, np.uint8) for i in range(25)), fps=25)
    return path


def test_border_line_clips_are_shown(footage: Path, tmp_path: Path) -> None:
    base = {"end_pts": 12800, "crop_height": 0.8, "motion": 0.1}
    clips = [{**base, "clip_id": f"c{i:02}", "blur_p50": float(i)} for i in range(30)]
    videos = [{"video_id": "v0", "uri": uri_of(footage)}]
    clips = [clip | {"uri": uri_of(footage)} for clip in clips]
    page, said = page_of(write_catalogue(tmp_path, clips, videos))
    # Six of blur and six of speed; all show the middle of the one video.
    assert len(page.sources) == 12
    assert len(set(page.sources)) == 1
    assert "1 pictures" in said
    assert page.tags.count("i") == 12


def test_the_same_catalogue_gives_the_same_page(tmp_path: Path) -> None:
    folder = random_catalogue(tmp_path, 300, 1, SCORES)
    first, said = page_of(folder, **WHOLE)
    again, _ = page_of(folder, **WHOLE)
    assert first.words == again.words
    assert first.tags == again.tags
    assert "could not be read" in said
    assert "no picture: the source is gone" in first.words


def test_what_data_says_is_only_text(tmp_path: Path) -> None:
    clips = [
        {"clip_id": f"{ODD}{i}", "uri": ODD, "crop_fault": ODD, "blur_p50": 1.0, "motion": 0.1}
        for i in range(3)
    ]
    videos = [{"uri": ODD, "source": ODD, "error": ODD, "error_class": ODD, "status": ODD}]
    page, _ = page_of(write_catalogue(tmp_path, clips, videos))
    assert page.words.count("<script>alert(1)</script>") >= 4


def test_a_catalogue_without_clips_has_a_page(tmp_path: Path) -> None:
    folder = write_catalogue(tmp_path / "full", [{"clip_id": "a", "blur_p50": 1.0, "motion": 0.1}])
    with catalogue(folder) as database:
        database.write("SELECT * FROM clips WHERE false", tmp_path / "empty" / "clips.parquet")
    for file in ("videos.parquet", "catalogue.json"):
        (tmp_path / "empty" / file).write_bytes((folder / file).read_bytes())
    page, _ = page_of(tmp_path / "empty")
    assert "Keeps 0 of 0 clips" in page.words


def test_histograms_count_every_clip(tmp_path: Path) -> None:
    folder = random_catalogue(tmp_path, 1000, 2, SCORES)
    policy = policy_of()
    with catalogue(folder) as database:
        chosen = decide(database, policy, "chosen")
        shown = histogram(database, chosen, 2, policy.rules[2])
        kept = chosen.kept
    assert sum(shown.counts) + shown.missing == 1000
    assert sum(shown.kept) == kept
    threshold = int(shown.place(15.0) * 40)
    assert sum(shown.kept[:threshold]) == 0
    svg = drawing(shown, "a & b")
    assert svg.count('class="all"') == sum(count > 0 for count in shown.counts)
    assert "<title>a &amp; b</title>" in svg
    (x,) = re.findall(r'class="bound" x1="([\d.]+)"', svg)
    assert float(x) == pytest.approx(shown.place(15.0) * 360, abs=0.1)
