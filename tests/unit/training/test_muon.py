import pytest
import torch
from torch import Tensor, nn

from contentv.training.muon import BatchedMuon

SHAPES = ((24, 24), (24, 24), (24, 96), (96, 24), (8, 24), *[(24, 24)] * 9)


def networks() -> nn.ParameterList:
    torch.manual_seed(0)
    return nn.ParameterList(torch.randn(shape) for shape in SHAPES)


def gradients(step: int) -> list[Tensor]:
    torch.manual_seed(step + 1)
    return [torch.randn(shape) for shape in SHAPES]


def trained(kind: type[torch.optim.Muon], *, nesterov: bool, skip: int) -> tuple[nn.Module, Tensor]:
    """Weights after a few steps of which the `skip`-th matrix takes no part, and its momenta."""
    weights = networks()
    optimizer = kind(weights.parameters(), 0.01, nesterov=nesterov, adjust_lr_fn="match_rms_adamw")
    for step in range(3):
        for place, (weight, gradient) in enumerate(
            zip(weights.parameters(), gradients(step), strict=True)
        ):
            weight.grad = None if place == skip else gradient
        optimizer.step()
    state = optimizer.state_dict()["state"]
    assert state.keys() == set(range(len(SHAPES))) - {skip}
    return weights, torch.cat([state[i]["momentum_buffer"].flatten() for i in sorted(state)])


@pytest.mark.parametrize("nesterov", [True, False])
def test_updates_and_state_are_those_of_torch(nesterov: bool) -> None:
    ours, our_momenta = trained(BatchedMuon, nesterov=nesterov, skip=4)
    theirs, their_momenta = trained(torch.optim.Muon, nesterov=nesterov, skip=4)
    assert torch.equal(our_momenta, their_momenta)
    for start, our, their in zip(
        networks().parameters(), ours.parameters(), theirs.parameters(), strict=True
    ):
        moved, expected = our - start, their - start
        # Bitwise so far, but the products may round in another order on another machine.
        assert (moved - expected).norm() <= 0.02 * expected.norm()


def test_no_gradient_no_step() -> None:
    weights = networks()
    BatchedMuon(weights.parameters(), adjust_lr_fn="match_rms_adamw").step()
    for weight, start in zip(weights.parameters(), networks().parameters(), strict=True):
        assert torch.equal(weight, start)
