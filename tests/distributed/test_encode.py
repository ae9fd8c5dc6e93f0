"""`contentv encode --workers`: several processes make the store of one."""

from pathlib import Path

import pytest

from builders import build_random_pipeline
from contentv.base.errors import WorldError
from contentv.encoding import views
from contentv.encoding.config import EncodeConfig
from contentv.recipes.encode import run
from contentv.toyworld.dataset import sample
from contentv.video.io import write_video


def contents(store: Path) -> dict[str, bytes]:
    found = (path for path in store.rglob("*") if path.is_file())
    return {path.relative_to(store).as_posix(): path.read_bytes() for path in found}


def films_and_model(folder: Path) -> tuple[Path, Path]:
    films = folder / "films"
    films.mkdir()
    for number in range(4):
        write_video(films / f"{number}.mp4", sample(0, number).frames(5), fps=8)
        (films / f"{number}.txt").write_text(f"clip {number}")
    return films, build_random_pipeline(folder / "model", blocks=1)


def encode(films: Path, model: Path, out: Path, workers: int) -> int:
    config = {"clips": films, "model": str(model), "frames": (5,), "text": False, "device": "cpu"}
    result = run(EncodeConfig(**config, out=out, workers=workers))
    return result.decoded


def test_two_workers_make_the_store_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "MOST_VIEWS", 2)
    given = films_and_model(tmp_path)
    assert encode(*given, tmp_path / "one", 1) == 4
    assert encode(*given, tmp_path / "two", 2) == 4
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


@pytest.mark.slow
def test_what_stops_a_worker_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store/clips").write_text("in the way")
    with pytest.raises(WorldError, match="cannot write"):
        encode(*films_and_model(tmp_path), tmp_path / "store", 2)
