"""However the mesh is cut, it trains what one process trains: float64, three clipped AdamW steps.

Five samples among two or four groups: batches are unequal in every case.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from contentv.distributed.config import ParallelConfig, RecomputeConfig
from contentv.distributed.declaration import Declaration
from contentv.distributed.mesh import build_mesh
from contentv.distributed.parallelize import parallelize
from contentv.models.parallel import declare
from ranks import run_ranks
from small_training import (
    MAX_NORM,
    Case,
    largest_difference,
    losses,
    small_transformer,
    train_alone,
    train_together,
)

EXACT = 1e-12
WRONG = 1e-5


def mesh(replicate: int, shard: int, sp: int = 1, tp: int = 1) -> ParallelConfig:
    return ParallelConfig(replicate=replicate, shard=shard, sp=sp, tp=tp)


def assert_parity(*cases: Case) -> None:
    alone = {positions: train_alone(positions) for positions in {c.positions for c in cases}}
    assert min(alone["ape"].norms) > MAX_NORM, "clipping has nothing to do"
    found = {c: largest_difference(train_together(c), alone[c.positions]) for c in cases}
    assert {str(case): value for case, value in found.items() if not value <= EXACT} == {}


def weights() -> None:
    assert_parity(Case(parallel=mesh(2, 2)), Case(parallel=mesh(1, 4)), Case(parallel=mesh(4, 1)))


def tokens() -> None:
    assert_parity(
        Case(parallel=mesh(1, 2, sp=2)),
        Case(parallel=mesh(2, 1, sp=2), micro_batches=2),
        Case(parallel=mesh(1, 1, sp=4)),
        Case(parallel=ParallelConfig(sp=4, sp_split="uneven")),
        Case(parallel=mesh(1, 2, sp=2), positions="rope"),
    )


def matrices() -> None:
    assert_parity(
        Case(parallel=mesh(1, 1, sp=2, tp=2)),
        Case(parallel=mesh(1, 2, tp=2)),
        Case(parallel=mesh(2, 1, tp=2)),
    )


def recomputation() -> None:
    full, some = RecomputeConfig(mode="full"), RecomputeConfig(mode="full", every=2)
    selective = RecomputeConfig(mode="selective")
    assert_parity(
        Case(parallel=mesh(2, 1, sp=2), recompute=full, micro_batches=2),
        Case(parallel=mesh(2, 2), recompute=some),
        Case(parallel=mesh(1, 1, sp=4), recompute=selective),
        Case(parallel=mesh(1, 1, sp=2, tp=2), recompute=selective),
    )


def faults() -> None:
    """Each is a mistake that trains without an error, and that the tests above would show."""
    alone = train_alone()
    means = train_together(Case(parallel=mesh(2, 2)), reduce=mean_of_means)
    assert largest_difference(means, alone) > WRONG
    norms = train_together(Case(parallel=mesh(1, 2, tp=2)), change=forget_shared_norms)
    assert largest_difference(norms, alone) > WRONG


def mean_of_means(errors: Tensor, groups: int) -> Tensor:
    return errors.mean() / groups


def forget_shared_norms(declaration: Declaration) -> Declaration:
    assert declaration.tensor_split is not None
    return replace(declaration, tensor_split=replace(declaration.tensor_split, head_norms=()))


def half_precision() -> None:
    """Weights travel in bfloat16, what the optimizer sees stays float32, and the loss falls."""
    model = small_transformer().float()
    where = build_mesh(mesh(1, 2, sp=2), torch.device("cpu"))
    parallelize(model, where, declare(model), bf16=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    seen = []
    for _ in range(4):
        with torch.autocast("cpu", torch.bfloat16):
            error = losses(model, 0, [where.data_group]).sum()
        error.backward()
        assert {p.grad.dtype for p in model.parameters() if p.grad is not None} == {torch.float32}
        optimizer.step()
        optimizer.zero_grad()
        seen.append(error.item())
    assert seen[-1] < seen[0]


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "function", [weights, tokens, matrices, recomputation, half_precision, faults]
)
def test_four_ranks(function: Callable[[], None], tmp_path: Path) -> None:
    run_ranks(function, 4, tmp_path)


def eight_ways() -> None:
    assert_parity(
        Case(parallel=mesh(2, 2, sp=2)),
        Case(parallel=mesh(2, 1, sp=2, tp=2)),
        Case(parallel=mesh(1, 2, sp=2, tp=2), recompute=RecomputeConfig(mode="selective")),
        Case(parallel=mesh(2, 4)),
        Case(parallel=mesh(1, 2, sp=4)),
    )


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_eight_ranks(tmp_path: Path) -> None:
    run_ranks(eight_ways, 8, tmp_path)


def compiled_blocks() -> None:
    # The graph is what can go wrong here; generating C++ from it takes minutes.
    torch.compile = partial(torch.compile, backend="aot_eager")
    selective = RecomputeConfig(mode="selective")
    assert_parity(
        Case(parallel=mesh(1, 1, sp=2), compiled=True),
        Case(parallel=mesh(1, 2), compiled=True, recompute=selective),
        Case(parallel=mesh(1, 1, sp=2), compiled=True, recompute=selective),
    )


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_compiled_blocks(tmp_path: Path) -> None:
    run_ranks(compiled_blocks, 2, tmp_path)
