"""Both suites on untrained networks: clips do not depend on who else is in the batch."""

from pathlib import Path

import numpy as np
import pytest

from builders import DEFAULTS, random_pipeline
from contentv.base.errors import ModelFilesError, UserError
from contentv.base.types import Frames
from contentv.evaluation.autoencoder import Reconstruction, load_autoencoder
from contentv.evaluation.config import EvaluateConfig
from contentv.evaluation.measure import Suite
from contentv.evaluation.questions import Question, ask
from contentv.evaluation.scoring import Row, psnr
from contentv.evaluation.toybench import Toybench, check_readable
from contentv.pipelines.jobs import Job
from contentv.pipelines.sidecar import describe_machine
from contentv.pipelines.studio import Studio

JOB = Job.model_validate(
    {
        **{name: DEFAULTS.get(name) for name in Job.model_fields},
        "prompt": "any",
        "seed": 0,
        "guidance_scale": 2.0,
        "speed": "exact",
    }
)


@pytest.fixture(scope="module")
def toybench() -> Toybench:
    studio = Studio(random_pipeline(), describe_machine("cpu", "float32", 1), embeds=None)
    return Toybench(studio, JOB)


def questions(number: int, **settings: object) -> list[Question]:
    config = {"suite": "toybench", "num_prompts": number, **settings}
    return list(ask(EvaluateConfig.model_validate(config)))


def answers(suite: Suite, asked: list[Question], size: int) -> dict[str, tuple[Row, Frames]]:
    return {
        row.name: (row, frames)
        for batch in suite.batches(asked, size)
        for row, frames in suite.answer(batch)
    }


def test_videos_do_not_depend_on_the_batch(toybench: Toybench) -> None:
    asked = questions(6)
    together, alone = answers(toybench, asked, 6), answers(toybench, asked, 1)
    assert together.keys() == alone.keys() == {question.name for question in asked}
    for name, (_, frames) in together.items():
        difference = frames.astype(int) - alone[name][1]
        assert np.abs(difference).max() <= 1  # a matrix product of six rows rounds differently
    first, second, *_ = (frames for _, frames in together.values())
    assert np.abs(first.astype(int) - second).max() > 20


def test_batches_hold_texts_of_one_length(toybench: Toybench) -> None:
    asked = questions(20)
    batches = toybench.batches(asked, 4)
    assert sorted(q.name for batch in batches for q in batch) == sorted(q.name for q in asked)
    assert max(len(batch) for batch in batches) == 4
    places = [asked.index(batch[0]) for batch in batches]
    assert places == sorted(places)


def test_what_is_left_is_batched_as_before(toybench: Toybench) -> None:
    asked = questions(20)
    batches = toybench.batches(asked, 3)
    done = {question.name for batch in batches[:2] for question in batch}
    assert toybench.batches([q for q in asked if q.name not in done], 3) == batches[2:]


def test_a_model_of_another_world_is_refused() -> None:
    with pytest.raises(UserError, match="makes 432x768 pixels"):
        check_readable(JOB.model_copy(update={"height": 432, "width": 768}), "big")


def test_reconstructions_are_compared_with_their_clips() -> None:
    asked = questions(3, suite="autoencoder")
    suite = Reconstruction(random_pipeline().vae)
    for question in asked:
        row, frames = answers(suite, asked, 2)[question.name]
        assert row.psnr == pytest.approx(psnr(frames, question.sample.frames()))
        assert row.asked == question.sample.scene.facts


def test_a_folder_without_autoencoder_is_named(tmp_path: Path) -> None:
    import torch

    with pytest.raises(ModelFilesError, match="vae: cannot be loaded"):
        load_autoencoder(tmp_path, torch.device("cpu"))
