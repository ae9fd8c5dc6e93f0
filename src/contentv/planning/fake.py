"""The memory of a training step measured without a device: real code on tensors without content.

One process plays the first of a whole cluster, and torch's own tracker follows each allocation. The
tracker and the fake process group are private parts of torch and may move: they are imported here
only, and tests skip when they are gone.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.function import FunctionCtx
from torch.distributed._tools import mod_tracker
from torch.distributed._tools.fsdp2_mem_tracker import FSDPMemTracker
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils.flop_counter import FlopCounterMode

from contentv.distributed.config import ParallelConfig, RecomputeConfig
from contentv.distributed.mesh import Mesh, build_mesh
from contentv.distributed.parallelize import parallelize
from contentv.models.attention import HeadNorm
from contentv.models.cost import TransformerSize
from contentv.models.parallel import declare
from contentv.models.transformer import ContentVTransformer3DModel
from contentv.planning.memory import Workload
from contentv.video.shapes import LatentShape

_CPU = torch.device("cpu")


def measure_memory(
    size: TransformerSize, layout: ParallelConfig, recompute: RecomputeConfig, work: Workload
) -> dict[str, float]:
    """Bytes at the fullest moment of a step of full training, by the tracker's kinds and "Total".

    The forward runs in bfloat16, AdamW has its moments already, there are no averaged weights. With
    `work.accumulates` gradients of an earlier round are there. `layout` must have tp = 1: FSDP over
    split matrices asks tensors for their content.
    """
    with _fake_cluster(layout) as mesh, FakeTensorMode():
        model = _build(size)
        parallelize(model, mesh, declare(model), recompute=recompute, bf16=True)
        for module in model.modules():
            if isinstance(module, HeadNorm):
                module.forward = partial(_normalise, module)  # type: ignore[method-assign]
        optimizer = torch.optim.AdamW(model.parameters(), foreach=False)
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        if not work.accumulates:
            optimizer.zero_grad(set_to_none=True)
        inputs = _inputs(size, work)
        tracker = FSDPMemTracker(model, optimizer)
        tracker.track_inputs(inputs)
        with _no_kept_gradients(), tracker:
            model(*inputs)[0].float().square().mean().backward()
            optimizer.step()
        return _plain(tracker.get_tracker_snapshot("peak")[_CPU])


def measure_flops(
    size: TransformerSize, latent: LatentShape, text_tokens: int
) -> tuple[float, float]:
    """Operations of a forward, and of a forward and backward, that torch counts for one sample."""
    with torch.device("meta"):
        model = _build(size)
        inputs = _inputs(size, Workload(latent, text_tokens, 1, accumulates=False))
    model.to(torch.bfloat16)
    with FlopCounterMode(display=False) as forward:
        loss = model(*inputs)[0].sum()
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    counted = float(forward.get_total_flops())
    return counted, counted + float(backward.get_total_flops())


@contextmanager
def _fake_cluster(layout: ParallelConfig) -> Iterator[Mesh]:
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=layout.world_size)
    try:
        yield build_mesh(layout, _CPU)
    finally:
        dist.destroy_process_group()


@contextmanager
def _no_kept_gradients() -> Iterator[None]:
    """Keep the tracker from changing what it measures.

    It waits at each block for the gradients of all inputs, of which the conditioning's comes last,
    and meanwhile holds the others: one more of a block's size with every block that is done, which
    without the tracker are one, added to in place. What waits only keeps names for its tables.
    """
    register = mod_tracker.register_multi_grad_hook  # type: ignore[attr-defined]

    def register_any(
        tensors: Sequence[Tensor], function: Callable[..., None], *, mode: str = "all"
    ) -> Any:  # noqa: ANN401 - torch's handle, or nothing to remove
        return register(tensors, function, mode="any") if mode == "any" else None

    mod_tracker.register_multi_grad_hook = register_any  # type: ignore[assignment, attr-defined]
    try:
        yield
    finally:
        mod_tracker.register_multi_grad_hook = register  # type: ignore[attr-defined]


def _build(size: TransformerSize) -> ContentVTransformer3DModel:
    return ContentVTransformer3DModel(
        num_layers=size.num_layers,
        num_attention_heads=size.num_heads,
        attention_head_dim=size.head_dim,
        caption_projection_dim=size.width,
        joint_attention_dim=size.text_width,
        pooled_projection_dim=size.pooled_width,
        in_channels=size.in_channels,
        out_channels=size.out_channels,
        patch_size=size.patch_size,
    )


def _inputs(size: TransformerSize, work: Workload) -> tuple[Any, ...]:
    latent = (work.latent.frames, work.latent.height, work.latent.width)
    empty = partial(torch.empty, dtype=torch.bfloat16)
    return (
        empty(work.samples, size.in_channels, *latent),
        empty(work.samples, work.text_tokens, size.text_width),
        empty(work.samples, size.pooled_width),
        torch.empty(work.samples),
        None,
        False,
    )


def _plain(snapshot: dict[Any, int]) -> dict[str, float]:
    return {str(getattr(kind, "value", kind)): float(count) for kind, count in snapshot.items()}


class _OneKernelNorm(torch.autograd.Function):
    """Memory of the norm as accelerators compute it: one kernel that keeps its input.

    On the CPU it falls apart into float32 steps, each of which autograd would keep.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor) -> Tensor:
        scale = x.new_empty((*x.shape[:-1], 1), dtype=torch.float32)
        ctx.save_for_backward(x, weight, scale)
        return torch.empty_like(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ANN401
        _, weight, _ = ctx.saved_tensors
        return torch.empty_like(grad), torch.empty_like(weight)


def _normalise(norm: nn.RMSNorm, x: Tensor) -> Tensor:
    out: Tensor = _OneKernelNorm.apply(x, norm.weight.to(x.dtype))  # type: ignore[no-untyped-call]
    return out
