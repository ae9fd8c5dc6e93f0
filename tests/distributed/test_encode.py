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


def test_two_workers_make_the_store_of_one_and_say_why_they_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "MOST_VIEWS", 2)
    model = build_random_pipeline(tmp_path / "model", blocks=1)
    films = tmp_path / "films"
    films.mkdir()
    for number in range(4):
        write_video(films / f"{number}.mp4", sample(0, number).frames(5), fps=8)
        (films / f"{number}.txt").write_text(f"clip {number}")

    def encode(out: Path, workers: int) -> int:
        config = {"clips": films, "model": str(model), "frames": (5,), "text": False}
        result = run(EncodeConfig(**config, out=out, workers=workers, device="cpu"))
        return result.decoded

    assert encode(tmp_path / "one", 1) == 4
    assert encode(tmp_path / "two", 2) == 4
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    monkeypatch.setattr(views, "MOST_VIEWS", 4)  # one shard, so one process
    (tmp_path / "three").mkdir()
    (tmp_path / "three/clips").write_text("in the way")
    with pytest.raises(WorldError, match="cannot write"):
        encode(tmp_path / "three", 2)
