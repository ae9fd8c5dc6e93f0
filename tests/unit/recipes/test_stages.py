from pathlib import Path

import pytest
import yaml

from contentv.base.config import load_yaml
from contentv.base.errors import UserError
from contentv.data.buckets import Buckets
from contentv.data.plan import MixPhase
from contentv.planning.config import PlanRecipe
from contentv.planning.run import shipped_plans
from contentv.recipes.contentv_8b import CONTENTV_8B
from contentv.recipes.dataset import joint
from contentv.recipes.stages import changed_recipe


def test_the_recipe_has_the_shapes_that_are_planned_for() -> None:
    plan = load_yaml(PlanRecipe, shipped_plans()["paper-256"])
    assert [stage.name for stage in plan.stages] == list(CONTENTV_8B.stages)
    for planned in plan.stages:
        stage = CONTENTV_8B.stage(planned.name)
        largest = max(planned.buckets, key=lambda bucket: bucket.frames)
        assert max(stage.buckets.frames) == largest.frames
        assert stage.buckets.areas == (largest.height * largest.width,)
        shapes = Buckets(stage.buckets).shapes
        assert (largest.frames, largest.height, largest.width) in {
            (shape.frames, shape.height, shape.width) for shape in shapes
        }
        assert stage.batch_size * stage.micro_batches == planned.batch
        assert stage.sampling.density.shift == 1


def test_three_encoders_are_silent_together_in_a_tenth_of_the_samples() -> None:
    for stage in CONTENTV_8B.stages.values():
        assert stage.sampling.caption_drop**3 == pytest.approx(0.1, abs=0.001)


def changed(folder: Path, text: str) -> object:
    file = folder / "my.yaml"
    file.write_text(text)
    return changed_recipe(CONTENTV_8B, file)


def test_a_file_changes_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    recipe = changed(
        tmp_path, "stages: {stage1: {steps: 9000, optimizer: {learning_rate: 3.0e-5}}}"
    )
    before, after = CONTENTV_8B.stage("stage1"), recipe.stage("stage1")
    rate = {**before.optimizer.model_dump(), "learning_rate": 3e-5}
    assert after.model_dump() == {**before.model_dump(), "steps": 9000, "optimizer": rate}
    others = [name for name in CONTENTV_8B.stages if name != "stage1"]
    assert all(recipe.stage(name) == CONTENTV_8B.stage(name) for name in others)
    assert recipe.seed == CONTENTV_8B.seed
    assert changed(tmp_path, "") == CONTENTV_8B


def test_a_written_recipe_is_a_file_of_changes(tmp_path: Path) -> None:
    text = yaml.safe_dump(CONTENTV_8B.model_dump(mode="json"), sort_keys=False)
    assert changed(tmp_path, text) == CONTENTV_8B


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("stages: {stage1: {stepz: 5}}", "stages.stage1.stepz: there is no such setting"),
        ("stages: {stage9: {steps: 5}}", "stage=stage9: no such stage; use vae_adaptation, stage1"),
        ("stages: {stage1: {steps: 100}}", "video_first=5000: must be below steps=100"),
        (
            "stages: {stage1: {buckets: {frames: [29]}}}",
            "pictures=1: buckets.frames has no 1; add it or use pictures=0",
        ),
        (
            "stages: {stage1: {buckets: {frames: [1]}}}",
            "videos=1: buckets.frames has pictures only; use videos=0",
        ),
        ("stages: {vae_adaptation: {pictures: 0}}", "pictures=0: and videos=0 leave nothing"),
        ("stages: {stage2: {buckets: {frames: [30]}}}", "frames=30: must be 4k+1; use 29 or 33"),
        ("stages: {stage2: {validation: {every: 5}}}", "every=5: no prompts to validate with"),
        ("seed: -1", "seed=-1: "),
        ("stages: {stage1: [", "not YAML"),
        ("- 1", "not settings by name"),
        ("stages: 5", "stages=5: "),
    ],
)
def test_what_makes_no_recipe_is_one_line(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        changed(tmp_path, text)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_stage_before_is_the_one_named_before() -> None:
    names = list(CONTENTV_8B.stages)
    assert [CONTENTV_8B.before(name) for name in names] == [None, *names[:-1]]


def test_the_trainer_is_told_all_that_it_asks_for() -> None:
    stage = CONTENTV_8B.stage("stage3")
    config = stage.config("stage3", 7)
    assert (config.name, config.seed, config.steps) == ("stage3", 7, stage.steps)
    assert (config.optimizer, config.ema_decay) == (stage.optimizer, stage.ema_decay)
    assert config.checkpoint_every == stage.checkpoint_every


def test_videos_come_first_and_pictures_join() -> None:
    first, rest = joint(video_first=3, pictures=1, videos=2)([])
    assert first == MixPhase(steps=3, pictures=0, videos=1)
    assert (rest.pictures, rest.videos) == (1, 2)
    assert len(joint(video_first=0, pictures=1, videos=0)([])) == 1
