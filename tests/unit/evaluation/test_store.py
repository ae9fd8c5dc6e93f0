"""A stopped evaluation goes on; `Renderer` is a model without fault that can be stopped."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from contentv.base.errors import WorldError
from contentv.base.types import Frames
from contentv.evaluation.config import EvaluateConfig
from contentv.evaluation.measure import answer_all
from contentv.evaluation.questions import Question, ask
from contentv.evaluation.scoring import Row, score
from contentv.evaluation.sheet import strip
from contentv.evaluation.store import Store

QUESTIONS = list(ask(EvaluateConfig(suite="toybench", num_prompts=10)))


class Renderer:
    """Answers with the very clip, until after `stop_after` batches somebody presses Ctrl-C."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.stop_after = stop_after
        self.answered: list[str] = []

    def batches(self, questions: Sequence[Question], size: int) -> list[tuple[Question, ...]]:
        return [tuple(questions[i : i + size]) for i in range(0, len(questions), size)]

    def answer(self, batch: Sequence[Question]) -> Iterator[tuple[Row, Frames]]:
        if self.stop_after == 0:
            raise KeyboardInterrupt
        if self.stop_after is not None:
            self.stop_after -= 1
        for question in batch:
            self.answered.append(question.name)
            frames = question.sample.frames()
            yield score(question, frames), frames


def missing(store: Store) -> list[Question]:
    return [question for question in QUESTIONS if question.name not in store.rows]


def test_a_stopped_evaluation_goes_on(tmp_path: Path) -> None:
    store = Store(tmp_path, "model", {"seed": 1})
    with pytest.raises(KeyboardInterrupt):
        answer_all(Renderer(stop_after=2), QUESTIONS, store, 3)
    again = Store(tmp_path, "model", {"seed": 1})
    assert [question.name for question in missing(again)] == [q.name for q in QUESTIONS[6:]]
    rest = Renderer()
    answer_all(rest, missing(again), again, 3)
    assert rest.answered == [question.name for question in QUESTIONS[6:]]
    whole = Store(tmp_path, "model", {"seed": 1})
    assert set(whole.rows) == {question.name for question in QUESTIONS}
    assert all(row.all_right for row in whole.rows.values())
    assert not list(tmp_path.rglob("*.part*"))


def test_strips_belong_to_their_rows(tmp_path: Path) -> None:
    answer_all(Renderer(), QUESTIONS, Store(tmp_path, "model", {}), 4)
    store = Store(tmp_path, "model", {})
    for question in QUESTIONS:
        np.testing.assert_array_equal(store.strip(question.name), strip(question.sample.frames()))


def test_strips_without_rows_do_not_count(tmp_path: Path) -> None:
    store = Store(tmp_path, "model", {})
    answer_all(Renderer(), QUESTIONS[:2], store, 2)
    next(store.folder.glob("*.jsonl")).unlink()
    assert Store(tmp_path, "model", {}).rows == {}


def test_other_settings_are_another_folder(tmp_path: Path) -> None:
    answer_all(Renderer(), QUESTIONS[:2], Store(tmp_path, "model", {"steps": 20}), 2)
    assert Store(tmp_path, "model", {"steps": 4}).rows == {}
    assert len(Store(tmp_path, "model", {"steps": 20}).rows) == 2


def test_foreign_rows_are_named(tmp_path: Path) -> None:
    store = Store(tmp_path, "model", {})
    (store.folder / "rows.jsonl").write_text('{"name": "seen"}\n')
    with pytest.raises(WorldError, match=r"rows\.jsonl: not rows of an evaluation .* remove it"):
        Store(tmp_path, "model", {})
