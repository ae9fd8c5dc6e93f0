from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from contentv.base.errors import UserError, WorldError
from contentv.distributed.checkpoint import Checkpoint, CheckpointWriter, inspect
from contentv.models.zoo import tiny_text_towers
from contentv.training.config import OptimizerConfig
from contentv.training.optim import build_optimizers
from contentv.training.state import TrainState, load_untied, untied


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


def saved(state: TrainState, folder: Path) -> Path:
    with CheckpointWriter(folder) as writer:
        return writer.save(state.checkpoint({}))


def test_a_state_of_another_network_is_refused(tmp_path: Path) -> None:
    path = saved(started(), tmp_path)
    with pytest.raises(UserError, match="another network"):
        started(network(4)).load(inspect(path))


def test_a_checkpoint_without_averages_is_no_run(tmp_path: Path) -> None:
    with CheckpointWriter(tmp_path) as writer:
        path = writer.save(Checkpoint(1, {"model": untied(network())}, {}))
    with pytest.raises(WorldError, match="has no ema"):
        started().load(inspect(path))


def test_the_averages_are_lent_and_given_back_bit_for_bit() -> None:
    state = started()
    list(walk(state, 0.5, 3))
    weights = {name: value.clone() for name, value in untied(state.networks).items()}
    average = {name: value.clone() for name, value in state.ema.items()}
    with state.averaged() as networks:
        assert all(torch.equal(x, average[name]) for name, x in untied(networks).items())
    assert all(torch.equal(x, weights[name]) for name, x in untied(state.networks).items())
    assert all(torch.equal(x, average[name]) for name, x in state.ema.items())
    with pytest.raises(ZeroDivisionError), state.averaged():
        raise ZeroDivisionError
    assert torch.equal(untied(state.networks)["0.weight"], weights["0.weight"])
