import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from contentv.base.config import save_yaml
from contentv.base.errors import UserError
from contentv.base.files import write_json
from contentv.curation.catalogue import EMBEDDINGS, STATE
from contentv.curation.config import CurationSettings, Record, TeachConfig
from contentv.curation.scoring.embedding import embedding_name
from contentv.curation.settings import EmbeddingSettings
from contentv.curation.tables import write_rows
from contentv.curation.teaching.heads import apply_head, load_clip_head
from contentv.curation.teaching.labels import Comparisons, Scores, read_labels
from contentv.curation.teaching.lessons import teach
from contentv.curation.teaching.teach import run

WIDTH = 24


@pytest.fixture
def vectors() -> dict[str, NDArray[np.float64]]:
    rows = np.random.default_rng(0).normal(size=(120, WIDTH))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return {f"{number:032x}": row for number, row in enumerate(rows)}


@pytest.fixture
def truth(vectors: dict[str, NDArray[np.float64]]) -> dict[str, float]:
    """What is right for each clip: a direction in the space of vectors."""
    taste = np.random.default_rng(1).normal(size=WIDTH)
    return {name: 5 + float(vector @ taste) for name, vector in vectors.items()}


def agreement(found: NDArray[np.float64], truth: list[float]) -> float:
    return float(np.corrcoef(found, truth)[0, 1])


def test_scores_teach_a_head_that_holds_for_other_clips(
    vectors: dict[str, NDArray[np.float64]], truth: dict[str, float]
) -> None:
    shown, others = sorted(vectors)[:60], sorted(vectors)[60:]
    lesson = teach(vectors, Scores({name: truth[name] for name in shown}))
    found = lesson.head(np.stack([vectors[name] for name in others]))
    assert np.allclose(found, [truth[name] for name in others], atol=0.1)
    assert lesson.agreement > 0.95
    assert lesson.used == 60


def test_comparisons_teach_the_same_order(
    vectors: dict[str, NDArray[np.float64]], truth: dict[str, float]
) -> None:
    names = sorted(vectors)
    pairs = [*zip(names[:60], names[60:], strict=True), *pairwise(names[:60])]
    ordered = tuple((a, b) if truth[a] > truth[b] else (b, a) for a, b in pairs)
    lesson = teach(vectors, Comparisons(ordered))
    found = lesson.head(np.stack([vectors[name] for name in names]))
    assert agreement(found, [truth[name] for name in names]) > 0.95
    assert lesson.agreement > 0.85


def test_labels_without_sense_are_not_said_to_be_learned(
    vectors: dict[str, NDArray[np.float64]],
) -> None:
    noise = np.random.default_rng(2).normal(size=len(vectors))
    assert teach(vectors, Scores(dict(zip(vectors, noise, strict=True)))).agreement < 0.35


def test_too_few_or_equal_labels_are_refused(vectors: dict[str, NDArray[np.float64]]) -> None:
    with pytest.raises(UserError, match="labels=3: of clips in the catalogue; needs 10"):
        teach(vectors, Scores(dict.fromkeys(sorted(vectors)[:3], 1.0) | {"unknown": 2.0}))
    with pytest.raises(UserError, match="labels=0"):
        teach(vectors, Comparisons((("a", "b"),)))
    with pytest.raises(UserError, match="score=2: all scores are equal"):
        teach(vectors, Scores(dict.fromkeys(vectors, 2.0)))


def test_labels_of_both_kinds_and_both_files(tmp_path: Path) -> None:
    table, lines = tmp_path / "a.csv", tmp_path / "a.jsonl"
    table.write_text("clip_id,score,by\na,1,x\nb,3,x\na,2,y\n", encoding="utf-8-sig")
    assert read_labels(table) == Scores({"a": 1.5, "b": 3.0})
    lines.write_text('{"better": "a", "worse": "b"}\n\n{"better": "b", "worse": "c"}\n')
    assert read_labels(lines) == Comparisons((("a", "b"), ("b", "c")))


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "clip_id,score\na,good\n", "line 2: score=good: must be a number"),
        ("a.csv", "clip_id,score\na,nan\n", "line 2: score=nan: must be a number"),
        ("a.csv", "clip_id,score\na\n", "line 2: score=None: must be a number"),
        ("a.csv", "clip_id,stars\na,1\n", "needs the columns clip_id and score"),
        ("a.csv", "", "holds no labels"),
        ("a.jsonl", '{"better": "a", "worse": "a"}', "line 1: better and worse must name two"),
        ("a.jsonl", "[1]", "line 1: must be an object"),
        ("a.jsonl", "{", "line 1: not JSON"),
        ("a.txt", "", r"must be a \.csv or \.jsonl file"),
    ],
)
def test_bad_labels_are_refused_with_their_line(
    tmp_path: Path, name: str, text: str, said: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=said):
        read_labels(tmp_path / name)


def test_the_verb_writes_a_head_for_this_catalogue(
    tmp_path: Path, vectors: dict[str, NDArray[np.float64]], truth: dict[str, float]
) -> None:
    rows = [{"clip_id": name, "embedding": vector.tolist()} for name, vector in vectors.items()]
    write_rows(tmp_path / EMBEDDINGS, rows, {"clip_id": str, "embedding": list})
    write_json(tmp_path / STATE, {})
    save_yaml(Record(sources=(), settings=CurationSettings()), tmp_path / "run.yaml")
    labels = tmp_path / "labels.jsonl"
    said = [{"clip_id": name, "score": truth[name]} for name in sorted(vectors)[:40]]
    labels.write_text("\n".join(map(json.dumps, [*said, {"clip_id": "gone", "score": 1}])))
    out = tmp_path / "head.safetensors"
    result = run(TeachConfig(catalogue=tmp_path, labels=labels, out=out))
    assert "40 scores used, 1 of clips that the catalogue does not have" in str(result)
    found = apply_head(
        load_clip_head(out), np.stack(list(vectors.values())), embedding_name(EmbeddingSettings())
    )
    assert agreement(found, list(truth.values())) > 0.9
