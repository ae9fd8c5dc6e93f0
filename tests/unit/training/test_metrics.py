import json
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from contentv.base.errors import UserError
from contentv.data.batch import LatentBatch, VideoBatch
from contentv.training.groups import latent_groups, video_groups
from contentv.training.metrics import Metrics
from contentv.training.numbers import StepNumbers
from contentv.training.peers import Peers


def numbers(loss: float, groups: dict[str, tuple[float, int]]) -> StepNumbers:
    return StepNumbers({"loss": loss}, groups, samples=4, flops=0.0)


def test_a_group_is_the_mean_over_its_samples_not_over_steps(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path, "stage", 10, peers=Peers())
    metrics.add(numbers(1.0, {"kind/image": (3.0, 3), "kind/video": (1.0, 1)}), {"norm": 1.0})
    metrics.add(numbers(2.0, {"kind/image": (5.0, 1)}), {"norm": 2.0})
    means = metrics.report(2)
    metrics.close()
    assert means["loss"] == 1.5
    assert means["norm"] == 1.5
    assert means["loss/kind/image"] == 2.0
    assert means["loss/kind/video"] == 1.0
    assert json.loads((tmp_path / "log.jsonl").read_text())["loss/kind/image"] == 2.0
    board = EventAccumulator(str(tmp_path)).Reload()
    assert [event.value for event in board.Scalars("loss/kind/image")] == [2.0]


def test_wandb_is_asked_for_by_name_and_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="wandb=mine: wandb is not installed"):
        Metrics(tmp_path, "stage", 10, peers=Peers(), wandb="mine")


def test_wandb_gets_the_curves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []

    class Run:
        def log(self, values: dict[str, float], *, step: int) -> None:
            calls.append((step, values["loss"]))

        def finish(self) -> None:
            calls.append("finished")

    def init(**given: str) -> Run:
        calls.append(given)
        return Run()

    library = ModuleType("wandb")
    library.__spec__ = ModuleSpec("wandb", None)
    library.init = init  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", library)
    metrics = Metrics(tmp_path, "stage", 10, peers=Peers(), wandb="mine")
    metrics.add(numbers(3.0, {}), {})
    metrics.report(1)
    metrics.close()
    assert calls == [
        {"project": "mine", "name": "stage", "dir": str(tmp_path)},
        (1, 3.0),
        "finished",
    ]


def test_every_sample_is_in_one_group_of_each_way() -> None:
    sigma = torch.tensor([0.0, 0.49, 0.5, 0.985, 1.0])
    latents = torch.zeros(5, 16, 3, 4, 6)
    batch = LatentBatch(latents, latents, sigma, ("",) * 5, tuple("abcde"))
    assert latent_groups(batch) == {
        "sigma": ["0-0.5", "0-0.5", "0.5-0.8", "0.98-1", "0.98-1"],
        "kind": ["video"] * 5,
        "shape": ["3x4x6"] * 5,
    }


def test_one_frame_is_an_image() -> None:
    batch = VideoBatch(torch.zeros(2, 3, 1, 8, 16), torch.zeros(2), ("a", "b"))
    assert video_groups(batch) == {"kind": ["image"] * 2, "shape": ["1x8x16"] * 2}
