"""`contentv curate teach`: from a person's labels to a head that scores all clips."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from contentv.base.config import load_yaml
from contentv.curation.catalogue import EMBEDDINGS, read_columns
from contentv.curation.config import Record, TeachConfig
from contentv.curation.engine.run import RECORD
from contentv.curation.scoring.embedding import embedding_name
from contentv.curation.teaching.heads import ClipHead, save_clip_head
from contentv.curation.teaching.labels import Scores, read_labels
from contentv.curation.teaching.lessons import Lesson, teach


@dataclass(frozen=True)
class Taught:
    """What was learned; `unknown` labels name clips that the catalogue has no vector of."""

    lesson: Lesson
    out: Path
    kind: str
    unknown: int

    def __str__(self) -> str:
        """Say how good the head is, on two lines."""
        lesson = self.lesson
        agreed = (
            f"rank correlation {lesson.agreement:.2f}"
            if self.kind == "scores"
            else f"{lesson.agreement:.0%} of comparisons right"
        )
        left = f", {self.unknown} of clips that the catalogue does not have" if self.unknown else ""
        return f"{self.out}\n{lesson.used} {self.kind} used{left}; held out: {agreed}"


def run(config: TeachConfig) -> Taught:
    """Fit a head to labels of a catalogue's clips and write it."""
    labels = read_labels(config.labels)
    columns = read_columns(config.catalogue, EMBEDDINGS, ["clip_id", "embedding"])
    vectors = {
        clip: np.asarray(vector, np.float32)
        for clip, vector in zip(*columns.values(), strict=True)
        if vector is not None and clip in labels.clips
    }
    lesson = teach(vectors, labels)
    kind = "scores" if isinstance(labels, Scores) else "comparisons"
    settings = load_yaml(Record, config.catalogue / RECORD).settings.embedding
    facts = {"labels": str(lesson.used), "of": kind, "agreement": f"{lesson.agreement:.4f}"}
    save_clip_head(config.out, ClipHead(lesson.head, embedding_name(settings), facts))
    return Taught(lesson, config.out, kind, len(labels) - lesson.used)
