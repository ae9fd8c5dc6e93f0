"""Exchanges between processes through which gradients flow, and a test of them at start-up."""

from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import _functional_collectives as functional
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Shard

from contentv.base.errors import WorldError
from contentv.distributed.mesh import Mesh


def exchange(
    parts: Sequence[Tensor],
    shapes: Sequence[Sequence[int]],
    group: dist.ProcessGroup,
    *,
    even: bool,
) -> list[Tensor]:
    """Send `parts[j]` to process j of `group`; get from process j a tensor of `shapes[j]`.

    `even` promises that all parts of all processes have one size.
    """
    receive = [torch.Size(shape).numel() for shape in shapes]
    # A functional collective: recomputation that keeps the result of one that works in place gets
    # wrong gradients without an error.
    received = functional.all_to_all_single_autograd(
        torch.cat([part.reshape(-1) for part in parts]),
        output_split_sizes=None if even else receive,
        input_split_sizes=None if even else [part.numel() for part in parts],
        group=group,
    )
    pieces = torch.split(received, receive)
    return [piece.view(torch.Size(shape)) for piece, shape in zip(pieces, shapes, strict=True)]


def gather(tensor: Tensor, group: dist.ProcessGroup) -> list[Tensor]:
    """`tensor` of every process, equal shapes; gradients flow into this process's own only."""
    own = tensor.detach().contiguous()
    pieces = [torch.empty_like(own) for _ in range(dist.get_world_size(group))]
    dist.all_gather(pieces, own, group=group)
    pieces[dist.get_rank(group)] = tensor
    return pieces


def check_collectives(mesh: Mesh) -> None:
    """Try what training will use on every axis of the mesh, with numbers known beforehand.

    Some versions of vendors' libraries give zeros without an error. WorldError says which.
    """
    checks: dict[str, Callable[[DeviceMesh], bool]] = {
        "all-reduce": _sums,
        "reduce-scatter": _scatters,
        "all-gather": _gathers,
        "all-to-all": _exchanges,
    }
    if mesh.config.sp_split == "uneven":
        checks["all-to-all of unequal parts"] = _exchanges_unequal
    for axis, line in mesh.axes.items():
        for name, check in checks.items():
            if line.size() > 1 and not check(line):
                raise WorldError(
                    f"{name} over {axis} ({line.size()} ranks, {line.device_type}): wrong numbers; "
                    "update the device's communication library"
                )


def _sums(line: DeviceMesh) -> bool:
    rank, size = line.get_local_rank(), line.size()
    total = torch.tensor([rank + 1.0], device=line.device_type)
    dist.all_reduce(total, group=line.get_group())
    return total.tolist() == [size * (size + 1) / 2]


def _scatters(line: DeviceMesh) -> bool:
    rank, size = line.get_local_rank(), line.size()
    mine = torch.arange(size, device=line.device_type, dtype=torch.float32) * (rank + 1)
    # By way of DTensor: the collective's own name has changed between versions of PyTorch.
    part = DTensor.from_local(mine, line, [Partial()]).redistribute(placements=[Shard(0)])
    return part.to_local().tolist() == [rank * size * (size + 1) / 2]


def _gathers(line: DeviceMesh) -> bool:
    rank, size = line.get_local_rank(), line.size()
    pieces = gather(torch.tensor(rank + 1.0, device=line.device_type), line.get_group())
    return [piece.item() for piece in pieces] == [j + 1.0 for j in range(size)]


def _exchanges(line: DeviceMesh) -> bool:
    rank, size = line.get_local_rank(), line.size()
    parts = list(torch.arange(size, device=line.device_type) + rank * size + 1.0)
    pieces = exchange(parts, [()] * size, line.get_group(), even=True)
    return [piece.item() for piece in pieces] == [j * size + rank + 1.0 for j in range(size)]


def _exchanges_unequal(line: DeviceMesh) -> bool:
    """Process j sends r numbers j + 1 to process r: nothing to the first."""
    rank, size = line.get_local_rank(), line.size()
    parts = [torch.full((j,), rank + 1.0, device=line.device_type) for j in range(size)]
    pieces = exchange(parts, [(rank,)] * size, line.get_group(), even=False)
    return [piece.tolist() for piece in pieces] == [[j + 1.0] * rank for j in range(size)]
