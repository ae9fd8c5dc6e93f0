import pytest
import torch
from torch import nn

from contentv.distributed.clip import by_mesh, clip_grad_norm


def network() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2)).double()
    model(torch.randn(5, 4, dtype=torch.float64)).square().sum().backward()
    return model


@pytest.mark.parametrize("max_norm", [0.1, 1e6])
def test_one_process_is_clipped_as_by_torch(max_norm: float) -> None:
    ours, theirs = network(), network()
    norm = clip_grad_norm(ours.parameters(), max_norm)
    expected = nn.utils.clip_grad_norm_(theirs.parameters(), max_norm)
    torch.testing.assert_close(norm, expected, rtol=1e-14, atol=0.0)
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-14, atol=0.0)


def test_without_gradients_there_is_nothing_to_clip() -> None:
    assert clip_grad_norm(nn.Linear(2, 2).parameters(), 1.0) == 0.0


def test_a_norm_that_is_not_finite_is_told() -> None:
    model = network()
    next(model.parameters()).grad[0, 0] = torch.inf
    assert clip_grad_norm(model.parameters(), 1.0).isinf()


def test_parameters_of_one_process_are_one_group() -> None:
    parameters = list(network().parameters())
    assert by_mesh(parameters) == [parameters]
