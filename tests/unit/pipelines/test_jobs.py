import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contentv.pipelines.config import GenerateConfig, PromptConfig
from contentv.pipelines.folder import GenerationDefaults
from contentv.pipelines.jobs import Job, file_names, plan_jobs, read_prompts, slug

DEFAULTS = GenerationDefaults().model_dump()


def jobs(*prompts: PromptConfig, **common: object) -> list[Job]:
    config = GenerateConfig.model_validate({"prompts": ("unused",), **common})
    return plan_jobs(prompts, config, DEFAULTS)


def test_the_folder_the_command_and_the_prompt_decide_in_this_order() -> None:
    (job,) = jobs(PromptConfig(prompt="a", height=64), width=128, height=32, guidance_scale=2.5)
    assert (job.height, job.width, job.num_frames) == (64, 128, 125)
    assert (job.guidance_scale, job.num_inference_steps, job.fps) == (2.5, 50, 24)
    assert (job.seed, job.flow_shift, job.negative_prompt) == (0, None, None)


def test_each_prompt_starts_at_the_same_seed() -> None:
    made = jobs(PromptConfig(prompt="a"), PromptConfig(prompt="b", seed=3), seed=7)
    assert [(job.prompt, job.seed) for job in made] == [("a", 7), ("b", 3)]
    made = jobs(PromptConfig(prompt="a"), num_videos_per_prompt=3, seed=5)
    assert [job.seed for job in made] == [5, 6, 7]


def test_jobs_of_one_shape_and_schedule_fit_together() -> None:
    one, other = jobs(PromptConfig(prompt="a", seed=1, fps=8), PromptConfig(prompt="b"))
    assert one.fits_with(other)
    for change in ({"height": 64}, {"num_inference_steps": 3}, {"negative_prompt": "x"}):
        assert not one.fits_with(other.model_copy(update=change))


def test_arguments_flag_and_file_add_up_in_order(tmp_path: Path) -> None:
    (tmp_path / "p").write_text("\ufeffc\r\n\r\n  d  \n", encoding="utf-8")
    config = GenerateConfig(prompts=("a",), prompt="b", prompts_file=tmp_path / "p")
    assert [prompt.prompt for prompt in read_prompts(config)] == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("A red circle moves LEFT.", "a-red-circle-moves-left"),
        ("../../etc/passwd", "etc-passwd"),
        ("一只猫在跑", "一只猫在跑"),
        ("Ünïcödé — dash", "ünïcödé-dash"),
        ("e\u0301te\u0301", "été"),
        ("\u202egnp.exe\x1b[31m", "gnp-exe-31m"),
        ("?!/\\:*", "video"),
    ],
)
def test_names_say_what_is_in_the_video(text: str, name: str) -> None:
    assert slug(text) == name


def test_long_prompts_that_begin_alike_get_different_names() -> None:
    first, second = slug("word " * 100 + "a"), slug("word " * 100 + "b")
    assert first != second
    assert first[:60] == second[:60]


@given(st.text(max_size=300))
def test_names_fit_every_file_system(text: str) -> None:
    name = slug(text)
    assert 0 < len(name.encode()) <= 160
    assert not name.startswith((".", "-"))
    assert all(c == "-" or unicodedata.category(c)[0] in "LMN" for c in name)


@given(st.lists(st.tuples(st.sampled_from(["a", "A", "a b", "a/b"]), st.integers(0, 2))))
def test_no_two_videos_share_a_name(texts: list[tuple[str, int]]) -> None:
    made = jobs(*(PromptConfig(prompt=text, seed=seed) for text, seed in texts))
    found = list(file_names(made))
    assert len({name.casefold() for name in found}) == len(texts)
    assert found == list(file_names(made))
