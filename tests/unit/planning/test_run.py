import json
import subprocess
import sys
from pathlib import Path

import pytest

from contentv import cli
from contentv.planning.config import PlanConfig
from contentv.planning.memory import GIB
from contentv.planning.run import run, shipped_plans

DOCS = Path(__file__).parents[3] / "docs" / "plans"
TINY = Path(__file__).parents[3] / "src/contentv/assets/tiny/transformer/config.json"
PLAN = """
title: a small one
model: {model}
device: h100
count: 2
mfu: 0.5
price: 3
stages:
  - {{name: one, batch: 8, steps: 100, text_tokens: 128,
      buckets: [{{frames: {frames}, height: 64, width: 64}}]}}
"""


def write_plan(folder: Path, *, frames: int = 17, model: object = TINY) -> Path:
    path = folder / "plan.yaml"
    path.write_text(PLAN.format(frames=frames, model=model))
    return path


@pytest.mark.parametrize("name", shipped_plans())
def test_shipped_plans_fit_and_print_what_is_committed(name: str) -> None:
    result = run(PlanConfig(plan=name))
    for stage in result.stages:
        assert stage.fullest.memory.peak <= result.device.memory_gib * 0.9 * GIB
    assert f"{result}\n" == (DOCS / f"{name}.txt").read_text(encoding="utf-8")


def test_a_plan_of_ones_own(tmp_path: Path) -> None:
    out = tmp_path / "plan.json"
    result = run(PlanConfig(plan=str(write_plan(tmp_path)), out=out))
    stage = result.stages[0]
    assert stage.hours == pytest.approx(100 * stage.step_seconds / 3600)
    assert result.cost(result.hours) == pytest.approx(6 * result.hours)
    written = json.loads(out.read_text())
    assert written == result.to_json()
    assert written["parameters"] < 1e7
    assert sum(
        size for part, size in written["stages"][0]["buckets"][0]["memory_bytes"].items()
        if part != "exchange"
    ) == pytest.approx(written["stages"][0]["buckets"][0]["peak_bytes"])  # fmt: skip


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    plan = str(write_plan(tmp_path))
    slow, fast = run(PlanConfig(plan=plan, mfu=0.25)), run(PlanConfig(plan=plan, count=8))
    plain = run(PlanConfig(plan=plan, price=1, device="h200", memory_gib=40))
    assert slow.recipe.mfu == 0.25
    assert fast.stages[0].layout.world_size == 8
    assert (plain.recipe.price, plain.device.memory_gib) == (1, 40)


def test_the_command_prints_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "plan.json"
    assert cli.main(["plan", "720p-256", "--mfu", "0.3", "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert "replicate 32 x shard 1 x sp 8 x tp 1, recompute full" in text
    assert "MFU 30% assumed" in text
    assert json.loads(out.read_text())["recipe"]["mfu"] == 0.3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no-such"], "plan=no-such: no such file or plan; shipped are 720p-256, h200-8"),
        (["h200-8", "--device", "abacus"], "device=abacus: not a known kind; use one of ascend"),
        (["h200-8", "--mfu", "2"], "mfu=2: input should be less than or equal to 1"),
        (["720p-256", "--count", "100"], "replicate=32: must divide 100 ranks"),
        (["lora-24gb", "--memory-gib", "8"], "needs"),
    ],
)
def test_a_wrong_request_is_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["plan", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": 18}, "frames=18: must be 4k+1; use 17 or 21"),
        ({"model": "missing.json"}, "cannot read missing.json"),
    ],
)
def test_a_wrong_file_says_what_is_wrong(
    change: dict[str, object],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plan = write_plan(tmp_path, **change)  # type: ignore[arg-type]
    assert cli.main(["plan", str(plan)]) in (1, 2)
    assert message in capsys.readouterr().err


def test_shares_must_be_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_plan(tmp_path)
    path.write_text(path.read_text().replace("width: 64}", "width: 64, share: 0.4}"))
    assert cli.main(["plan", str(path)]) == 2
    assert "their shares must sum to 1" in capsys.readouterr().err


def test_a_model_file_of_something_else_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "config.json"
    model.write_text("[]")
    assert cli.main(["plan", str(write_plan(tmp_path, model=model))]) == 2
    assert "not a transformer's config" in capsys.readouterr().err


def test_planning_needs_no_torch() -> None:
    code = (
        "import sys; from contentv.cli import main; code = main(['plan', 'lora-24gb']); "
        "sys.exit(str({'torch', 'diffusers', 'numpy'} & set(sys.modules) or '') or code)"
    )
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
