"""Videos of captioned scenes, sampled as `contentv generate` would, several at once."""

from collections.abc import Iterator, Sequence

from contentv.base.errors import UserError
from contentv.base.types import Frames
from contentv.evaluation.questions import Question
from contentv.evaluation.scoring import Row, judge
from contentv.models.text import TextTowers, fitting_length
from contentv.pipelines.jobs import Job
from contentv.pipelines.pipeline import ContentVPipeline
from contentv.pipelines.studio import Studio
from contentv.toyworld.fitting import SIDE


class Toybench:
    """Answers questions with videos; the noise belongs to the question, not to its batch.

    `job` holds the settings of all videos; prompt, seed and number of tokens are the question's.
    """

    def __init__(self, studio: Studio, job: Job) -> None:
        self._studio = studio
        self._job = job
        self._towers = _t5_only(studio.pipe)

    def batches(self, questions: Sequence[Question], size: int) -> list[tuple[Question, ...]]:
        """Group questions whose texts need equally many tokens, as each would alone."""
        groups: dict[int, list[tuple[int, Question]]] = {}
        for place, question in enumerate(questions):
            groups.setdefault(self._text_length(question), []).append((place, question))
        batches = [
            group[first : first + size]
            for group in groups.values()
            for first in range(0, len(group), size)
        ]
        # Long prompts take longer: spread over the run, they keep the time left honest.
        batches.sort(key=lambda batch: batch[0][0])
        return [tuple(question for _, question in batch) for batch in batches]

    def answer(self, batch: Sequence[Question]) -> Iterator[tuple[Row, Frames]]:
        """Give row and frames of each question of one of `batches`."""
        length = self._text_length(batch[0])
        jobs = tuple(
            self._job.model_copy(
                update={"prompt": q.caption.text, "seed": q.seed, "max_sequence_length": length}
            )
            for q in batch
        )
        blank = (self._job.num_frames, self._job.height, self._job.width, 3)
        latents = self._studio.sample(jobs, lambda: None)
        for place, question in enumerate(batch):
            frames = self._studio.frames(latents[place : place + 1])
            yield judge(question, frames, blank=blank)

    def _text_length(self, question: Question) -> int:
        lengths = self._studio.pipe.defaults.text_lengths
        return fitting_length(self._towers, [question.caption.text], lengths)


def check_readable(job: Job, model: str) -> None:
    """UserError when the oracle cannot read videos of a model's own size."""
    if job.height != job.width or job.height % SIDE:
        raise UserError(
            f"model={model}: makes {job.height}x{job.width} pixels, and the oracle reads squares "
            f"of {SIDE} or a multiple; choose a model of the toy world"
        )


def _t5_only(pipe: ContentVPipeline) -> TextTowers:
    """The one tower whose number of tokens depends on the text."""
    return TextTowers(
        tokenizer=None,
        tokenizer_2=None,
        tokenizer_3=pipe.tokenizer_3,
        text_encoder=None,
        text_encoder_2=None,
        text_encoder_3=None,
    )
