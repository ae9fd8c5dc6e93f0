"""Runs a test's function in several processes that can talk to each other."""

import importlib.util
import inspect
import multiprocessing
import sys
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch
import torch.distributed as dist

from contentv.distributed.mesh import leave_together

TIMEOUT = timedelta(seconds=60)


def run_ranks(function: Callable[[], None], world_size: int, folder: Path) -> None:
    """Calls `function`, of a test's file, in `world_size` processes; fails with all they say.

    `folder` must exist and be of this call only.
    Processes come from a server that has imported PyTorch once: half a minute less each time.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch.distributed.fsdp", "contentv.models.transformer"])
    source = Path(inspect.getfile(function))
    processes = [
        context.Process(target=_rank, args=(source, function.__name__, rank, world_size, folder))
        for rank in range(world_size)
    ]
    for process in processes:
        process.start()
    try:
        _wait(processes)
    finally:
        for process in processes:
            process.kill()
            process.join()
    reports = [path.read_text() for path in sorted(folder.glob("rank-*.txt"))]
    codes = [process.exitcode for process in processes]
    assert not reports, "\n".join(reports)
    assert codes == [0] * world_size, f"exit codes {codes}"


def folder() -> Path:
    """The test's folder, the same for every process and every call of `run_ranks` in it."""
    store = dist.distributed_c10d._get_default_store()
    while hasattr(store, "underlying_store"):
        store = store.underlying_store
    return Path(store.path).parents[1]


def _wait(processes: list[BaseProcess]) -> None:
    """Until all have ended, one has failed, or time is up."""
    deadline = time.monotonic() + 4 * TIMEOUT.total_seconds()
    while any(process.is_alive() for process in processes) and time.monotonic() < deadline:
        if any(process.exitcode for process in processes):
            time.sleep(1.0)  # for the others' reports
            return
        time.sleep(0.02)


def _rank(source: Path, name: str, rank: int, world_size: int, folder: Path) -> None:
    torch.set_num_threads(1)
    try:
        store = dist.FileStore(str(folder / "store"), world_size)
        dist.init_process_group(
            "gloo", store=store, rank=rank, world_size=world_size, timeout=TIMEOUT
        )
        _load(source, name)()
        leave_together()
        dist.destroy_process_group()
    except BaseException:  # noqa: BLE001 - whatever it is, the test shall say it
        (folder / f"rank-{rank}.txt").write_text(f"rank {rank}\n{traceback.format_exc()}")
        sys.exit(1)


def _load(source: Path, name: str) -> Callable[[], None]:
    spec = importlib.util.spec_from_file_location(source.stem, source)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)
