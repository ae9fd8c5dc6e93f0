import pytest
import torch

from contentv.evaluation.frechet import frechet_distance


def features(count: int, width: int = 5, seed: int = 0) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(count, width, generator=rng, dtype=torch.float64)


def test_a_set_is_no_distance_from_itself() -> None:
    one = features(50) @ features(5, seed=1)
    assert abs(frechet_distance(one, one)) < 1e-9


def test_a_shift_counts_squared() -> None:
    one = features(50)
    shift = torch.tensor([1.0, 0, 0, 2, 0], dtype=torch.float64)
    assert frechet_distance(one, one + shift) == pytest.approx(5.0)


def test_of_two_normals_on_the_axes_it_is_the_closed_form() -> None:
    """With commuting covariances: squared distance of the deviations along each axis."""
    white = features(200)
    white = white - white.mean(0)
    white = white @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(white.T)).T)
    a, b = (torch.linspace(first, 2, 5, dtype=torch.float64) for first in (0.5, 1.5))
    expected = (a - b).square().sum().item()
    assert frechet_distance(white * a, white * b) == pytest.approx(expected, rel=1e-9)


def test_it_is_symmetric_and_survives_fewer_rows_than_columns() -> None:
    one, other = features(3), features(4, seed=2) + 1
    assert frechet_distance(one, other) == pytest.approx(frechet_distance(other, one))
    assert frechet_distance(one, other) > 0


def test_one_row_is_refused() -> None:
    with pytest.raises(ValueError, match="1 and 4 rows, need at least 2"):
        frechet_distance(features(1), features(4))
