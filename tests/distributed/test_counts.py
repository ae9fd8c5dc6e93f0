"""How often 256 processes talk in a step of 38 blocks, counted in one of them."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode

from contentv.distributed.config import ParallelConfig, RecomputeConfig
from contentv.distributed.mesh import build_mesh
from contentv.distributed.parallelize import parallelize
from contentv.models.parallel import declare
from contentv.models.transformer import ContentVTransformer3DModel
from ranks import run_ranks

BLOCKS, HEADS, TEXT_WIDTH = 38, 38, 4
NO_COLLECTIVES = ("wait_tensor", "_wrap_tensor_autograd")


class Collectives(TorchDispatchMode):
    """Counts collectives by their operators' names."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        namespace, name, _ = str(func).split(".")
        if "c10d" in namespace and name not in NO_COLLECTIVES:
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))


def step(model: ContentVTransformer3DModel) -> None:
    out = model(
        torch.randn(1, 2, 1, 4, 8),
        torch.randn(1, 3, TEXT_WIDTH),
        torch.randn(1, 4),
        torch.tensor([500.0]),
        return_dict=False,
    )[0]
    assert out.shape == (1, 2, 1, 4, 8)
    out.square().sum().backward()


def small(blocks: int, heads: int, head_dim: int) -> ContentVTransformer3DModel:
    return ContentVTransformer3DModel(
        in_channels=2,
        out_channels=2,
        num_layers=blocks,
        num_attention_heads=heads,
        attention_head_dim=head_dim,
        caption_projection_dim=heads * head_dim,
        joint_attention_dim=TEXT_WIDTH,
        pooled_projection_dim=4,
    )


def count(recompute: RecomputeConfig) -> dict[str, int]:
    """Collectives of a step, HSDP 32 x 8 with the tokens over the same 8."""
    mesh = build_mesh(ParallelConfig(replicate=32, sp=8), torch.device("cpu"))
    model = small(BLOCKS, heads=8, head_dim=2)
    parallelize(model, mesh, declare(model), recompute=recompute)
    with Collectives() as collectives:
        step(model)
    return dict(collectives.counts)


def as_one_of(world_size: int) -> None:
    """Go on as rank 0 of many, where collectives give back anything."""
    dist.destroy_process_group()
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=world_size)


def counts() -> None:
    as_one_of(256)
    # Weights of every block, and of the rest, which stays for the backward; tokens of the output.
    others = {
        "_allgather_base_": BLOCKS + BLOCKS + 1,
        "_reduce_scatter_base_": BLOCKS + 1,
        "allreduce_": BLOCKS + 1,
        "allgather_": 1,
    }
    # Two a block in the forward, two in the backward, two when they are repeated.
    for mode, exchanges in (("full", 6 * BLOCKS), ("selective", 4 * BLOCKS)):
        found = count(RecomputeConfig(mode=mode))
        assert found == {**others, "all_to_all_single": exchanges}, (mode, found)


def test_collectives_of_a_step_on_256_ranks(tmp_path: Path) -> None:
    run_ranks(counts, 1, tmp_path)


def two_heads_each() -> None:
    as_one_of(38)
    model = small(2, heads=HEADS, head_dim=8)
    mesh = build_mesh(ParallelConfig(sp=2, tp=19), torch.device("cpu"))
    parallelize(model, mesh, declare(model))
    attention = model.transformer_blocks[0].attn
    rows, columns = attention.to_q.weight.to_local().shape
    assert (rows * 2 * 19, columns) == attention.to_q.weight.shape  # over sp as well
    assert attention.norm_q.weight.shape == (8,)
    step(model)
    assert all(p.grad is not None for p in model.parameters())


def test_tensor_parallelism_of_nineteen(tmp_path: Path) -> None:
    run_ranks(two_heads_each, 1, tmp_path)
