"""The one order in which a model is spread over a mesh."""

from functools import partial

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from contentv.base.errors import UserError
from contentv.distributed.config import RecomputeConfig
from contentv.distributed.declaration import Declaration
from contentv.distributed.mesh import Mesh
from contentv.distributed.recompute import recompute_blocks
from contentv.distributed.tensor_parallel import split_tensors
from contentv.distributed.ulysses import Ulysses, split_sequences


def parallelize(
    model: nn.Module,
    mesh: Mesh,
    declaration: Declaration | None = None,
    *,
    recompute: RecomputeConfig | None = None,
    bf16: bool = False,
    compiled: bool = False,
) -> None:
    """Spread `model` over `mesh` in place; its parameters become DTensors.

    Every process must hold the same weights, and later call `model` equally often. Gradients are
    SUMS over all processes, never means, so that unequal batches count right: the loss to minimise
    is (sum over this data group's samples) / (samples of all groups in this step). The processes
    of one data group must be given the same batch and compute the same loss.

    A model without a `declaration` is one unit of FSDP; the mesh must then have sp = tp = 1.
    `bf16` sends and multiplies weights in bfloat16 and sums gradients in float32; run the forward
    under autocast. `compiled` compiles each block by itself.

    Raises:
        UserError: heads, sp and tp do not fit, or the model declares nothing to split.
    """
    if declaration is None:
        _check_undeclared(mesh)
    else:
        _prepare_blocks(model, mesh, declaration, recompute or RecomputeConfig(), compiled=compiled)
    shard = partial(fully_shard, mesh=mesh.fsdp, mp_policy=_precision(bf16=bf16))
    if declaration is not None:
        for block in model.get_submodule(declaration.blocks).children():
            shard(block)
    shard(model)
    for unit in _units(model):
        unit.set_gradient_divide_factor(1.0)
        unit.set_force_sum_reduction_for_comms(True)


def set_gradient_sync(networks: nn.Module, enabled: bool) -> None:
    """Off for all but the last backward of a step that accumulates gradients."""
    for unit in _units(networks):
        unit.set_requires_gradient_sync(enabled, recurse=False)


def _check_undeclared(mesh: Mesh) -> None:
    for name, degree in (("sp", mesh.config.sp), ("tp", mesh.config.tp)):
        if degree > 1:
            raise UserError(f"{name}={degree}: this model does not say how to split it; use 1")


def _prepare_blocks(
    model: nn.Module,
    mesh: Mesh,
    declaration: Declaration,
    recompute: RecomputeConfig,
    *,
    compiled: bool,
) -> None:
    config = mesh.config
    config.check_model(
        num_heads=declaration.num_heads, splits_tensors=declaration.tensor_split is not None
    )
    if config.tp > 1:
        split_tensors(model, declaration, mesh.tp)
    if config.sp > 1:
        ulysses = Ulysses(mesh.sp.get_group(), even=config.sp_split == "even")
        split_sequences(model, declaration, ulysses)
    blocks = model.get_submodule(declaration.blocks)
    assert isinstance(blocks, nn.ModuleList)
    recompute_blocks(blocks, recompute)
    if compiled:
        for block in blocks:
            block.forward = torch.compile(block.forward, fullgraph=True, dynamic=False)


def _precision(*, bf16: bool) -> MixedPrecisionPolicy:
    if not bf16:
        return MixedPrecisionPolicy(cast_forward_inputs=False)
    # Inputs are not cast: a timestep of 0..1000 in bfloat16 would be off by up to 2.
    return MixedPrecisionPolicy(
        param_dtype=torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False
    )


def _units(networks: nn.Module) -> list[FSDPModule]:
    return [module for module in networks.modules() if isinstance(module, FSDPModule)]
