import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from builders import random_transformer
from contentv.data.batch import FeatureBatch
from contentv.training.objectives.frozen_text import FrozenTextObjective

BENCHMARK = Path(__file__).resolve().parents[3] / "benchmarks" / "trainer.py"


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("trainer_benchmark", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_both_take_their_turns(benchmark: ModuleType) -> None:
    result = benchmark.measure(rounds=2, steps=1, batch=2, frames=1, compiled=False)
    assert result.keys() == {"wall", "cpu"}
    for found in result.values():
        plain, ours = found["plain_seconds_of_each_round"], found["our_seconds_of_each_round"]
        assert len(plain) == len(ours) == len(found["ratio_of_each_round"]) == 2
        assert found["plain_samples_per_second"] > 0
        assert found["our_samples_per_second"] > 0


def test_both_have_the_same_loss(benchmark: ModuleType) -> None:
    transformer = random_transformer(1)
    features = benchmark.Features.random(transformer, 3, 2)
    noise, sigma = torch.randn_like(features.latents), torch.rand(3)
    objective = FrozenTextObjective(transformer, networks=nn.ModuleDict({"x": transformer}))
    batch = FeatureBatch(
        features.latents, noise, sigma, features.sequence, features.pooled, ("a", "b", "c")
    )
    torch.testing.assert_close(
        benchmark.plain_loss(transformer, features, noise, sigma),
        objective.losses(batch)["loss"].mean(),
    )


def test_the_plain_loop_learns(benchmark: ModuleType) -> None:
    torch.manual_seed(0)
    transformer = random_transformer(1)
    before = [p.detach().clone() for p in transformer.parameters()]
    loop = benchmark.PlainLoop(transformer, benchmark.Features.random(transformer, 4, 1), 2)
    loop.run(3)
    assert len(loop.losses) == 3
    assert any(
        not torch.equal(p, old) for p, old in zip(transformer.parameters(), before, strict=True)
    )
