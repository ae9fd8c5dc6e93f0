"""Tensor parallelism: each process computes some heads and some feed-forward channels of a block.

Method: arXiv 1909.08053 (Megatron-LM).
"""

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)

from contentv.distributed.declaration import Declaration, TensorSplit

_HEAD_DIM = 2  # heads are [b n h d]


def split_tensors(model: nn.Module, declaration: Declaration, mesh: DeviceMesh) -> None:
    """Split the blocks' matrices over `mesh`; all processes must hold the same weights."""
    assert declaration.tensor_split is not None
    blocks = model.get_submodule(declaration.blocks)
    for block in blocks.children():
        plan = _plan(block, declaration.tensor_split)
        # Weights are equal everywhere already, by seed or by file: nobody needs to send them.
        parallelize_module(block, mesh, plan, src_data_rank=None)


def _plan(block: nn.Module, split: TensorSplit) -> dict[str, ParallelStyle]:
    present = dict(block.named_modules())
    plan: dict[str, ParallelStyle] = {
        **{name: ColwiseParallel() for name in split.column},
        **{name: RowwiseParallel() for name in split.row},
        # To DTensor heads are what a sequence is to SequenceParallel: a dim of which each process
        # has a part, under weights that all share. So their gradient is Partial and gets summed.
        **{
            name: SequenceParallel(sequence_dim=_HEAD_DIM, use_local_output=True)
            for name in split.head_norms
        },
    }
    return {
        name: style
        for name, style in plan.items()
        if name in present and any(True for _ in present[name].parameters())
    }
