"""The processes of a run, and the one mesh (replicate, shard, sp, tp) they stand in."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from contentv.base.errors import UserError
from contentv.distributed.config import ParallelConfig

_TIMEOUT = timedelta(minutes=10)


@dataclass(frozen=True)
class Mesh:
    """This process's place in the mesh, and the views others need.

    Neighbours in `tp` have neighbouring ranks, then those in `sp`, `shard` and `replicate`. The
    two views cut the same ranks differently: `weights` is (replicate, fsdp, tp) with fsdp = shard
    x sp, `samples` is (data, sp, tp) with data = replicate x shard.
    """

    config: ParallelConfig
    weights: DeviceMesh
    samples: DeviceMesh

    @property
    def device_type(self) -> str:
        """Kind of device that computes."""
        return self.weights.device_type

    @property
    def fsdp(self) -> DeviceMesh:
        """Over which weights are kept and gradients summed: copies, if any, and shards of each."""
        return self.weights["replicate", "fsdp"] if self.config.replicate > 1 else self._shards

    @property
    def data(self) -> DeviceMesh:
        """One process of each data group: over this, values of samples are summed for the log."""
        return self.samples["data"]

    @property
    def sp(self) -> DeviceMesh:
        """The processes that share this one's samples, each with some of the tokens."""
        return self.samples["sp"]

    @property
    def tp(self) -> DeviceMesh:
        """The processes that share this one's tokens, each with some of the heads."""
        return self.weights["tp"]

    @property
    def axes(self) -> dict[str, DeviceMesh]:
        """Every line of processes that talk to each other, by name."""
        copies = self.weights["replicate"]
        lines = {"replicate": copies, "fsdp": self._shards, "data": self.data}
        return {**lines, "sp": self.sp, "tp": self.tp}

    @property
    def data_group(self) -> int:
        """Which data group this process is in: key of its samples, 0..num_data_groups-1."""
        return self.data.get_local_rank()

    @property
    def _shards(self) -> DeviceMesh:
        return self.weights["fsdp"]


def build_mesh(config: ParallelConfig, device: torch.device) -> Mesh:
    """Put all processes of the run into a mesh; every process must call it.

    UserError when the degrees do not multiply to the number of processes.
    """
    config.check_world(dist.get_world_size())
    weights = init_device_mesh(
        device.type,
        (config.replicate, config.shard * config.sp, config.tp),
        mesh_dim_names=("replicate", "fsdp", "tp"),
    )
    samples = init_device_mesh(
        device.type,
        (config.num_data_groups, config.sp, config.tp),
        mesh_dim_names=("data", "sp", "tp"),
    )
    return Mesh(config, weights, samples)


@contextmanager
def process_group(device: torch.device, *, timeout: timedelta = _TIMEOUT) -> Iterator[torch.device]:
    """Join the processes that torchrun started, or be the only one; gives this process's device.

    CPU tensors can be exchanged too, whatever the device.
    """
    device = _own_device(device)
    backend = dist.get_default_backend_for_device(device)
    if device.type != "cpu":
        backend = f"cpu:{dist.get_default_backend_for_device('cpu')},{device.type}:{backend}"
    if dist.is_torchelastic_launched():
        dist.init_process_group(backend, timeout=timeout)
    else:
        store = dist.HashStore()  # type: ignore[attr-defined]
        dist.init_process_group(backend, timeout=timeout, store=store, rank=0, world_size=1)
    try:
        yield device
        leave_together()
    finally:
        dist.destroy_process_group()


def refuse_torchrun(verb: str) -> None:
    """UserError when torchrun started this process and `verb` trains in one process only."""
    if dist.is_torchelastic_launched():
        raise UserError(f"torchrun: {verb} trains in one process; start it without torchrun")


def leave_together() -> None:
    """Wait until all processes are here, with nothing left that still talks.

    Ending a process while another's last collective is under way aborts it.
    """
    gc.collect()
    dist.barrier()


def _own_device(device: torch.device) -> torch.device:
    if device.type == "cpu":
        return device
    index = dist.get_node_local_rank(fallback_rank=device.index or 0)
    torch.accelerator.set_device_index(index)
    return torch.device(device.type, index)
