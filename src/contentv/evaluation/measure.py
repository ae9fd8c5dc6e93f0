"""One model, all questions: what is not answered yet is, batch by batch."""

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from contentv import toyworld
from contentv.base.device import default_dtype, pick_device
from contentv.base.progress import progress
from contentv.base.types import Frames
from contentv.evaluation.autoencoder import Reconstruction, load_autoencoder
from contentv.evaluation.config import EvaluateConfig
from contentv.evaluation.questions import Question, ask
from contentv.evaluation.scoring import Row
from contentv.evaluation.sheet import strip
from contentv.evaluation.store import Store
from contentv.evaluation.toybench import Toybench, check_readable
from contentv.pipelines.batches import Plan
from contentv.pipelines.jobs import slug
from contentv.pipelines.sidecar import Machine, describe_machine
from contentv.pipelines.studio import open_studio

_LONGEST_LABEL = 40


class Suite(Protocol):
    """What turns questions into clips and rows."""

    def batches(self, questions: Sequence[Question], size: int) -> list[tuple[Question, ...]]:
        """Group questions for `answer`; a prefix of whole batches missing changes no other."""
        ...

    def answer(self, batch: Sequence[Question]) -> Iterator[tuple[Row, Frames]]:
        """Give row and frames [t h w 3] of each question, in order."""
        ...


@dataclass(frozen=True)
class Measured:
    """A model's rows in the order of the questions, and where they and their strips lie."""

    name: str
    sha256: str
    settings: dict[str, Any]
    rows: tuple[Row, ...]
    store: Store


def measure(config: EvaluateConfig, name: str, plan: Plan, out: Path) -> Measured:
    """Answer all questions with the model called `name`, keeping the rows under `out`.

    `plan` is of one video: it says which model, and with which settings all videos are made.
    """
    machine = _machine(config)
    settings = _settings(config, name, plan, machine)
    store = Store(out, slug(Path(name).name)[:_LONGEST_LABEL], settings)
    questions = list(ask(config))
    missing = [question for question in questions if question.name not in store.rows]
    if missing:
        answer_all(_suite(config, plan, machine), missing, store, config.batch_size)
    rows = tuple(store.rows[question.name] for question in questions)
    return Measured(name, plan.model.sha256, settings, rows, store)


def answer_all(suite: Suite, questions: Sequence[Question], store: Store, batch_size: int) -> None:
    """Answer questions and store each batch as it is finished."""
    with progress(len(questions), "clips") as bar:
        for batch in suite.batches(questions, batch_size):
            start = time.perf_counter()
            rows, clips = zip(*suite.answer(batch), strict=True)
            seconds = round((time.perf_counter() - start) / len(batch), 4)
            timed = [row.model_copy(update={"seconds": seconds}) for row in rows]
            store.add(timed, [strip(clip) for clip in clips])
            bar.advance(len(batch))


def _suite(config: EvaluateConfig, plan: Plan, machine: Machine) -> Suite:
    if config.suite == "autoencoder":
        return Reconstruction(load_autoencoder(plan.folder, torch.device(machine.device)))
    return Toybench(open_studio(plan), plan.batches[0].jobs[0])


def _machine(config: EvaluateConfig) -> Machine:
    device = pick_device(config.device)
    default = torch.float32 if config.suite == "autoencoder" else default_dtype(device)
    dtype = config.dtype or str(default).removeprefix("torch.")
    return describe_machine(str(device), dtype, torch.get_num_threads())


def _settings(config: EvaluateConfig, name: str, plan: Plan, machine: Machine) -> dict[str, Any]:
    """All that decides a row besides its question: rows of equal settings may stand together."""
    settings: dict[str, Any] = {
        "suite": config.suite,
        "seed": config.seed,
        "model": plan.model.model_dump(exclude={"name"}),
        "machine": machine.model_dump(exclude={"threads"}),
        "toyworld": _toyworld_digest(),
    }
    if config.suite == "toybench":
        job = plan.batches[0].jobs[0]
        check_readable(job, name)
        settings["sampling"] = job.model_dump(exclude={"prompt", "seed", "max_sequence_length"})
    return settings


def _toyworld_digest() -> str:
    """Changes with the renderer, the captions or the oracle: their rows do not mix."""
    digest = hashlib.sha256()
    for path in sorted(Path(next(iter(toyworld.__path__))).glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
