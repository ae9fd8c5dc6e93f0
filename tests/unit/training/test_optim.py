import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from builders import VOCABULARY, random_transformer
from contentv.base.errors import UserError
from contentv.models.zoo import tiny_text_towers
from contentv.training.config import OptimizerConfig
from contentv.training.optim import build_optimizers, learning_rate

CONFIG = OptimizerConfig(learning_rate=0.01, warmup_steps=10, final_ratio=0.1)


def names_in(optimizer: torch.optim.Optimizer, network: nn.Module) -> dict[str, float]:
    """Weight decay by parameter name."""
    decay = {
        id(parameter): group["weight_decay"]
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    return {n: decay[id(p)] for n, p in network.named_parameters() if id(p) in decay}


@pytest.fixture(scope="module")
def networks() -> nn.Module:
    towers = tiny_text_towers(VOCABULARY)
    return nn.ModuleDict(
        {
            "transformer": random_transformer(),
            "text_encoder": towers.text_encoder,
            "text_encoder_3": towers.text_encoder_3,
        }
    )


def test_the_learning_rate_climbs_linearly_then_falls_on_a_cosine() -> None:
    rates = [learning_rate(CONFIG, step, 110) for step in range(110)]
    assert rates[:10] == pytest.approx([0.001 * (step + 1) for step in range(10)])
    assert rates[10] == pytest.approx(0.01)
    assert rates[60] == pytest.approx(0.01 * (0.1 + 0.9 / 2))
    assert all(later < earlier for earlier, later in pairwise(rates[10:]))
    assert rates[35] == pytest.approx(0.01 * (0.1 + 0.45 * (1 + math.cos(math.pi / 4))))
    assert learning_rate(CONFIG, 110, 110) == pytest.approx(0.001)


def test_the_rate_may_hold_before_it_falls() -> None:
    config = CONFIG.model_copy(update={"hold": 0.5})
    rates = [learning_rate(config, step, 110) for step in range(111)]
    assert rates[:10] == [learning_rate(CONFIG, step, 110) for step in range(10)]
    assert rates[10:61] == [0.01] * 51
    assert all(later < earlier for earlier, later in pairwise(rates[60:]))
    assert rates[85] == pytest.approx(0.01 * (0.1 + 0.9 / 2))
    assert rates[110] == pytest.approx(0.001)


def test_a_constant_rate_warms_up_and_stays() -> None:
    config = CONFIG.model_copy(update={"schedule": "constant"})
    rates = [learning_rate(config, step, 110) for step in range(111)]
    assert rates[:10] == [learning_rate(CONFIG, step, 110) for step in range(10)]
    assert set(rates[10:]) == {0.01}


def test_no_warm_up_starts_at_the_peak_and_a_stage_may_be_shorter_than_it() -> None:
    assert learning_rate(CONFIG.model_copy(update={"warmup_steps": 0}), 0, 5) == 0.01
    assert learning_rate(CONFIG, 4, 5) == pytest.approx(0.005)
    assert learning_rate(CONFIG, 10, 10) == pytest.approx(0.01)


def test_adamw_takes_everything_and_decays_matrices_only(networks: nn.Module) -> None:
    (adamw,) = build_optimizers(networks.named_parameters(), CONFIG)
    found = names_in(adamw, networks)
    parameters = dict(networks.named_parameters())
    assert found.keys() == parameters.keys()
    for name, decay in found.items():
        assert decay == (0.01 if parameters[name].ndim > 1 else 0.0), name
    assert isinstance(adamw, torch.optim.AdamW)
    assert adamw.defaults["betas"] == (0.9, 0.99)


def test_muon_takes_the_blocks_matrices_and_adamw_the_rest(networks: nn.Module) -> None:
    config = CONFIG.model_copy(update={"name": "muon"})
    adamw, muon = build_optimizers(networks.named_parameters(), config)
    assert isinstance(muon, torch.optim.Muon)
    ours, theirs = names_in(muon, networks), names_in(adamw, networks)
    parameters = dict(networks.named_parameters())
    assert ours.keys() | theirs.keys() == parameters.keys()
    assert ours.keys() & theirs.keys() == set()
    layers = ("attn.", "ff.", "ff_context.")
    expected = {
        name
        for name in parameters
        if name.startswith("transformer.transformer_blocks.")
        if name.endswith(".weight") and any(f".{layer}" in name for layer in layers)
        if "attn.norm" not in name
    }
    assert ours.keys() == expected
    assert len(expected) > 10
    assert set(ours.values()) == {0.01}


def test_muon_moves_a_matrix_as_far_as_adamw_does() -> None:
    """One learning rate means the same for both: updates of about 0.2 rates a weight."""
    torch.manual_seed(0)
    block = nn.ModuleDict({"x_blocks": nn.ModuleList([nn.Linear(64, 256, bias=False)])})
    config = OptimizerConfig(name="muon", learning_rate=0.1, weight_decay=0.0)
    _, muon = build_optimizers(block.named_parameters(), config)
    weight = next(block.parameters())
    before = weight.detach().clone()
    weight.grad = torch.randn_like(weight)
    muon.step()
    moved = (weight.detach() - before).square().mean().sqrt()
    assert 0.15 * 0.1 < moved < 0.25 * 0.1


def test_muon_without_blocks_is_refused() -> None:
    config = OptimizerConfig(name="muon")
    with pytest.raises(UserError, match="no transformer blocks; use adamw"):
        build_optimizers(nn.Linear(2, 2).named_parameters(), config)
