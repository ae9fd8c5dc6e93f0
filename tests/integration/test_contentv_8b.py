"""`contentv train contentv_8b`, at small sizes, in one process; many are in tests/distributed."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from chains import STAGES, chain, prepare, words
from contentv.cli import main
from contentv.distributed.checkpoint import latest, load
from contentv.encoding.config import ServeConfig
from contentv.pipelines.pipeline import ContentVPipeline
from contentv.recipes.serve import serving


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("chain"), videos=True)


def train(work: Path, out: str, **changes: object) -> int:
    return main(["train", "contentv_8b", *words(chain(work, out, **changes))])


def refusal(capsys: pytest.CaptureFixture[str], work: Path, out: str, **changes: object) -> str:
    """The one line that such a call ends with."""
    capsys.readouterr()
    assert train(work, out, **changes) == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_one_command_trains_all_stages_to_a_model_and_the_same_makes_it_longer(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(work, "run", until="stage1") == 0
    assert capsys.readouterr().out.strip() == str(work / "run" / "model")
    assert latest(work / "run" / "stage2") is None
    assert train(work, "run") == 0
    said = capsys.readouterr().err
    assert "stage2: begins with the weights of" in said
    assert "vae_adaptation 1/2" not in said, "a finished stage was trained again"
    averages = load(latest(work / "run" / "stage3")).tensors["ema"]
    pipe = ContentVPipeline.from_pretrained(work / "run" / "model", torch_dtype=torch.float32)
    for name, value in pipe.transformer.state_dict().items():
        assert torch.equal(value, averages[f"transformer.{name}"].bfloat16().float()), name
    for stage in STAGES:
        lines = (work / "run" / stage / "log.jsonl").read_text().splitlines()
        reports = [report for report in map(json.loads, lines) if "loss" in report]
        kinds = [{key for key in report if "loss/kind" in key} for report in reports]
        assert len(kinds) == 2
        assert ("loss/kind/video" in kinds[0]) == (stage != "vae_adaptation")
    first = json.loads((work / "run" / "stage1" / "log.jsonl").read_text().splitlines()[0])
    assert "loss/kind/image" not in first, "videos come first"
    (video,) = (work / "run" / "stage3" / "validation").glob("step-00000002/*.mp4")
    assert "red-circle" in video.name
    recipe = yaml.safe_load((work / "run" / "recipe.yaml").read_text())
    assert list(recipe["stages"]) == list(STAGES)
    (work / "other.yaml").write_text(
        (work / "recipe.yaml").read_text().replace("micro_batches: 2", "micro_batches: 3")
    )
    line = refusal(capsys, work, "run", recipe=work / "other.yaml")
    assert "began with other data or another network (micro_batches=2, now 3)" in line
    (work / "other.yaml").write_text(
        (work / "recipe.yaml").read_text().replace("steps: 2", "steps: 3")
    )
    assert train(work, "run", recipe=work / "other.yaml", accept=True) == 0
    assert latest(work / "run" / "stage3").name == "step-00000003"


def test_a_dry_run_tells_of_all_stages_and_leaves_nothing(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(path.name for path in work.iterdir())
    assert train(work, "dry", dry_run=True, until="stage1") == 0
    said = capsys.readouterr()
    for stage in STAGES[:2]:
        assert f"{stage}: would train steps 0 to 2" in said.err
    assert "stage1: will begin with the averaged weights of vae_adaptation" in said.err
    assert "nothing was trained" in said.out
    assert sorted(path.name for path in work.iterdir()) == before


def test_servers_that_encode_change_no_bit(work: Path) -> None:
    asked = {"stage": "stage1", "init_from": str(work / "model")}
    assert train(work, "here", **asked) == 0
    config = ServeConfig(
        clips=work / "films",
        plan=work / "recipe.yaml",
        model=str(work / "model"),
        bind="127.0.0.1:0",
        cache=work / "cache",
        workers=1,
        device="cpu",
    )
    with serving(config) as server:
        assert train(work, "there", servers=(server.address,), **asked) == 0
    assert not (work / "there" / "latents").exists()
    assert latest(work / "there" / "vae_adaptation") is None
    here, there = (load(latest(work / out / "stage1")).tensors for out in ("here", "there"))
    for group, tensors in here.items():
        assert all(torch.equal(value, there[group][name]) for name, value in tensors.items())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"servers": ("127.0.0.1:1",)}, "stage3: validation.every=2: videos need the autoencoder"),
        ({"features": ("absent",)}, "stage3: validation.every=2: videos need the autoencoder"),
        (
            {"features": ("absent",), "until": "stage1"},
            "features=absent: is no store of features; `contentv encode` makes it",
        ),
        ({"stage": "stage2"}, "stage2: begins with the weights of stage1, which has not ended in"),
        ({"stage": "stage9"}, "stage=stage9: no such stage; use vae_adaptation"),
        ({"until": "stage9"}, "stage=stage9: no such stage; use vae_adaptation"),
        ({"shard": 2}, "shard=2: must divide 1 ranks; use 1"),
        ({"data": "absent"}, "absent: no such file or folder"),
        ({"model": "absent"}, "model=absent: no such model"),
        ({"recipe": "absent.yaml"}, "cannot read absent.yaml: no such file"),
        (
            {"stage": "stage2", "init_from": "/"},
            "init_from=/: is neither a model folder nor a stage of a run",
        ),
    ],
)
def test_what_cannot_be_trained_is_one_line(
    work: Path, *, changes: dict[str, object], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert train(work, "refused", **changes) in (1, 2)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "contentv: " in line]
    assert said in line


def test_a_stage_without_a_usable_clip_is_said_before_any_is_trained(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (work / "recipe.yaml").read_text()
    head, last = text.rsplit("frames: [1, 5]", 1)
    last = last.replace("    validation:", "    pictures: 0\n    validation:")
    (work / "long.yaml").write_text(f"{head}frames: [9]{last}")
    line = refusal(capsys, work, "long", recipe=work / "long.yaml")
    assert "none of its 6 clips can be used (too_short: 3, no_pictures: 3)" in line
    assert not list((work / "long").glob("*/step-*"))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--stage", "stage1", "--until", "stage2"], "stage=stage1: is one stage alone; leave out"),
        (
            ["--features", "f", "--servers", "a:1"],
            "features=f: leave it out, or leave out --servers",
        ),
        (["--tls", "certs"], "tls=certs: is for encode servers; name them with --servers"),
    ],
)
def test_two_ways_to_say_a_thing_are_one_too_many(
    work: Path, capsys: pytest.CaptureFixture[str], more: list[str], said: str
) -> None:
    assert main(["train", "contentv_8b", *words(chain(work, "run")), *more]) == 2
    assert said in capsys.readouterr().err
