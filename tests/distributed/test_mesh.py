"""Meshes of every shape, and the test of their collectives at start-up."""

from itertools import product
from math import prod
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.distributed import _functional_collectives as functional
from torch.testing._internal.distributed.fake_pg import FakeStore

from contentv.base.errors import UserError, WorldError
from contentv.distributed.collectives import check_collectives
from contentv.distributed.config import ParallelConfig
from contentv.distributed.mesh import build_mesh, process_group
from contentv.distributed.parallelize import parallelize
from ranks import run_ranks

CPU = torch.device("cpu")


def ranks_of(group: dist.ProcessGroup) -> list[int]:
    return dist.get_process_group_ranks(group)


def every_factorization_of_eight() -> None:
    dist.destroy_process_group()
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=8)
    shapes = [sizes for sizes in product((1, 2, 4, 8), repeat=4) if prod(sizes) == 8]
    assert len(shapes) == 20
    for replicate, shard, sp, tp in shapes:
        mesh = build_mesh(ParallelConfig(replicate=replicate, shard=shard, sp=sp, tp=tp), CPU)
        assert ranks_of(mesh.tp.get_group()) == list(range(tp))
        assert ranks_of(mesh.sp.get_group()) == list(range(0, sp * tp, tp))
        assert ranks_of(mesh.data.get_group()) == list(range(0, 8, sp * tp))
        assert mesh.fsdp.mesh.flatten().tolist() == list(range(0, 8, tp))
        assert mesh.fsdp.ndim == (2 if replicate > 1 else 1)
        assert mesh.fsdp.size(-1) == shard * sp
        if sp * tp > 1:
            with pytest.raises(UserError, match="this model does not say how to split it; use 1"):
                parallelize(torch.nn.Linear(2, 2), mesh)


def start_up() -> None:
    places = []
    for config in (
        ParallelConfig(replicate=2, shard=2),
        ParallelConfig(shard=2, sp=2, sp_split="uneven"),
        ParallelConfig(sp=2, tp=2),
    ):
        mesh = build_mesh(config, CPU)
        check_collectives(mesh)
        places.append(mesh.data_group)
    rank = dist.get_rank()
    assert places == [rank, rank // 2, 0]
    refuses_a_wrong_world()
    notices_zeros()


def refuses_a_wrong_world() -> None:
    with pytest.raises(UserError, match="sp=3: must divide 4 ranks; use 1, 2 or 4"):
        build_mesh(ParallelConfig(sp=3), CPU)


def notices_zeros() -> None:
    """What a broken communication library has been seen to do."""
    mesh = build_mesh(ParallelConfig(sp=4), CPU)
    real = functional.all_to_all_single_autograd
    functional.all_to_all_single_autograd = lambda tensor, **_: torch.zeros_like(tensor)
    with pytest.raises(WorldError, match=r"all-to-all over fsdp \(4 ranks, cpu\): wrong numbers"):
        check_collectives(mesh)
    functional.all_to_all_single_autograd = real


def test_views_of_every_factorization_of_eight(tmp_path: Path) -> None:
    run_ranks(every_factorization_of_eight, 1, tmp_path)


def test_collectives_are_tried_at_start_up(tmp_path: Path) -> None:
    run_ranks(start_up, 4, tmp_path)


def fails_on_one_rank() -> None:
    assert dist.get_rank() != 1, "rank one is not well"
    dist.barrier()


def test_a_failure_of_one_rank_is_reported_and_ends_all(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="rank one is not well"):
        run_ranks(fails_on_one_rank, 3, tmp_path)


def test_a_process_without_others_is_a_world_of_one() -> None:
    with process_group(CPU) as device:
        assert device == CPU
        mesh = build_mesh(ParallelConfig(), device)
        check_collectives(mesh)
        assert mesh.data_group == 0
        model = torch.nn.Linear(2, 2)
        parallelize(model, mesh)
        model(torch.ones(1, 2)).sum().backward()
        assert model.bias.grad.full_tensor().tolist() == [1.0, 1.0]
    assert not dist.is_initialized()
