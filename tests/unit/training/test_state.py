from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from contentv.base.errors import UserError, WorldError
from contentv.models.zoo import tiny_text_towers
from contentv.training.config import OptimizerConfig, StageConfig
from contentv.training.optim import build_optimizers
from contentv.training.state import TrainState, load_untied, untied

CONFIG = StageConfig(name="stage", steps=4).model_dump(mode="json")


def network(width: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, width), nn.Linear(width, 1))


def started(model: nn.Module | None = None) -> TrainState:
    model = model or network()
    return TrainState.start(model, build_optimizers(model.named_parameters(), OptimizerConfig()))


def walk(state: TrainState, decay: float, steps: int) -> Iterator[torch.Tensor]:
    """Random weights instead of training; yields the first weight after each step."""
    for _ in range(steps):
        with torch.no_grad():
            for parameter in state.networks.parameters():
                parameter.normal_()
        state.step += 1
        state.update_ema(decay)
        yield untied(state.networks)["0.weight"].clone()


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.999])
def test_the_average_is_the_weighted_sum_of_all_weights_so_far(decay: float) -> None:
    state = started()
    values = [state.ema["0.weight"].clone(), *walk(state, decay, 30)]
    keeps = [min(decay, (1 + step) / (10 + step)) for step in range(1, 31)]
    weights = [1.0, *(1 - keep for keep in keeps)]
    for index, keep in enumerate(keeps):
        for earlier in range(index + 1):
            weights[earlier] *= keep
    assert sum(weights) == pytest.approx(1.0)
    expected = sum(weight * value for weight, value in zip(weights, values, strict=True))
    assert torch.allclose(state.ema["0.weight"], torch.as_tensor(expected), atol=1e-5)


def test_the_average_is_a_copy_not_the_weights() -> None:
    state = started()
    before = state.ema["0.weight"].clone()
    with torch.no_grad():
        state.networks[0].weight += 1  # type: ignore[index, union-attr]
    assert torch.equal(state.ema["0.weight"], before)


def test_a_weight_with_two_names_is_kept_once_and_both_are_loaded() -> None:
    encoder = tiny_text_towers(frozenset({"a"})).text_encoder_3
    names = untied(encoder).keys()
    state = encoder.state_dict()
    assert len(names) < len(state)
    assert {state[name].data_ptr() for name in names} == {v.data_ptr() for v in state.values()}
    target = tiny_text_towers(frozenset({"a"})).text_encoder_3
    load_untied(target, untied(encoder))
    for name, value in target.state_dict().items():
        assert torch.equal(value, state[name])


@pytest.mark.parametrize("other", [network(4), nn.Sequential(nn.Linear(3, 3))])
def test_weights_of_another_network_are_refused_naming_some(other: nn.Module) -> None:
    with pytest.raises(UserError, match=r"another network \(.*\d\.weight") as error:
        load_untied(network(), untied(other))
    assert "\n" not in str(error.value)


def test_there_is_nothing_to_resume_at_first(tmp_path: Path) -> None:
    assert not started().resume(tmp_path, CONFIG)


def test_a_changed_configuration_is_refused_naming_its_fields(tmp_path: Path) -> None:
    started().save(tmp_path, CONFIG)
    assert started().resume(tmp_path, CONFIG)
    other = StageConfig(
        name="stage", steps=5, optimizer=OptimizerConfig(learning_rate=0.5, betas=(0.9, 0.95))
    )
    with pytest.raises(UserError) as error:
        started().resume(tmp_path, other.model_dump(mode="json"))
    message = str(error.value)
    assert "\n" not in message
    assert "steps=4, now 5" in message
    assert "optimizer.learning_rate=0.001, now 0.5" in message
    assert "optimizer.betas" in message
    assert "warmup" not in message
    assert "--out" in message


@pytest.mark.parametrize("group", ["model", "ema", "optimizer"])
def test_a_missing_file_is_one_line(tmp_path: Path, group: str) -> None:
    path = started().save(tmp_path, CONFIG)
    (path / f"{group}.safetensors").unlink()
    with pytest.raises(WorldError, match=f"has no {group}.safetensors"):
        started().resume(tmp_path, CONFIG)
