"""Training checkpoints: tensors in safetensors, the rest in JSON; whole, or not there at all.

torch's distributed checkpoint (DCP) plans which process writes and reads which part of a tensor, so
any number of processes can go on from what any other number wrote. Its safetensors storage keeps
the files; nothing is pickled into them. `state.json` is written last: it holds the plain values and
the length of every file, and a folder without it does not count.
"""

import shutil
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import (
    HuggingFaceStorageReader,
    HuggingFaceStorageWriter,
)
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load as load_parts
from torch.distributed.checkpoint.state_dict_saver import async_save
from torch.distributed.checkpoint.storage import WriteResult

from contentv.base.errors import ContentVError, UserError, WorldError
from contentv.base.files import describe_os_error, os_errors, read_json, write_json

_PREFIX = "step-"
_PART = ".part-"  # of folders being written, and of those a killed run left
_STATE = "state.json"
_FILE_BYTES = 1 << 30  # a file is built in memory before it is written

Groups = Mapping[str, Mapping[str, Tensor]]


@dataclass(frozen=True)
class Checkpoint:
    """Groups of tensors by name (model, ema, optimizer) and the plain values beside them.

    A group's name has no dot. A DTensor stands for all its parts.
    """

    step: int
    tensors: Groups
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Stored:
    """A complete checkpoint on disk: what it holds, its tensors not yet read."""

    path: Path
    step: int
    values: Mapping[str, Any]
    tensors: Mapping[str, Mapping[str, TensorStorageMetadata]]


class CheckpointWriter:
    """Writes the checkpoints of one run while the run goes on; keeps the newest `keep`.

    `group` holds the processes of the run, None a single one. It must be a CPU group used for
    nothing else: the writing thread's collectives would mix with those of training.
    """

    def __init__(
        self, folder: Path, *, keep: int = 2, group: dist.ProcessGroup | None = None
    ) -> None:
        self._folder, self._keep, self._group = folder, keep, group
        self._writing: Future[Metadata] | None = None
        self._path = folder

    def save(self, checkpoint: Checkpoint) -> Path:
        """Copy the tensors and begin to write `folder/step-NNNNNNNN`.

        Waits for the checkpoint before, and raises what `wait` raises of it.
        """
        self.wait()
        self._path = self._folder / f"{_PREFIX}{checkpoint.step:08d}"
        flat = {name: value.detach().contiguous() for name, value in _flat(checkpoint).items()}
        size = self._group.size() if self._group is not None else 1
        state = {"step": checkpoint.step, "values": checkpoint.values}
        storage = _Storage(self._path, state, _file_numbers(flat, size), self._keep)
        saving = async_save(
            dict(flat),
            storage_writer=storage,
            process_group=self._group,
            no_dist=self._group is None,
        )
        assert isinstance(saving, Future)
        self._writing = saving
        return self._path

    def wait(self) -> None:
        """Return when the last checkpoint is on disk; WorldError when it could not be written."""
        writing, self._writing = self._writing, None
        if writing is None:
            return
        try:
            writing.result()
        except CheckpointException as error:
            if self._group is None or self._group.rank() == 0:
                shutil.rmtree(_part(self._path), ignore_errors=True)
            raise _cause(error, f"cannot write {self._path}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.wait()


class _Storage(HuggingFaceStorageWriter):
    """DCP's safetensors files in a folder that gets its name when all of them are there."""

    def __init__(
        self, path: Path, state: Mapping[str, Any], numbers: dict[str, int], keep: int
    ) -> None:
        super().__init__(str(_part(path)), fqn_to_index_mapping=numbers, save_distributed=True)
        self._final, self._state, self._keep = path, state, keep

    def set_up_storage_writer(
        self,
        is_coordinator: bool,
        *args: Any,  # noqa: ANN401
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        """Remove what a killed run left; torch calls this before any process writes."""
        super().set_up_storage_writer(is_coordinator, *args, **kwargs)
        if is_coordinator and self._final.parent.is_dir():
            for left in self._final.parent.glob(f"{_PART}{_PREFIX}*"):
                shutil.rmtree(left)

    def finish(
        self,
        metadata: Metadata,  # noqa: ARG002 - torch's own form of it would be a pickle
        results: list[list[WriteResult]],
    ) -> None:
        """Write the mark of completeness and give the folder its name; one process calls this."""
        part = _part(self._final)
        names = {written.storage_data.relative_path for rank in results for written in rank}
        sizes = {name: _size(part / name) for name in sorted(names)}
        write_json(part / _STATE, {**self._state, "files": sizes})
        if self._final.exists():
            self._final.replace(_part(self._final.with_name(f"{self._final.name}-replaced")))
        part.replace(self._final)
        self._remove_old()

    def _remove_old(self) -> None:
        folder = self._final.parent
        for old in _complete(folder)[: -self._keep]:
            (old / _STATE).unlink()  # first, so that a half-removed folder does not count
            shutil.rmtree(old)
        for replaced in folder.glob(f"{_PART}{_PREFIX}*"):
            shutil.rmtree(replaced)


def latest(folder: Path) -> Path | None:
    """Newest complete checkpoint of a run, or None."""
    found = _complete(folder)
    return found[-1] if found else None


def inspect(path: Path) -> Stored:
    """Look at a checkpoint; WorldError names the file that is missing, cut short or unreadable."""
    try:
        state = read_json(path / _STATE)
        step, values = int(state["step"]), dict(state["values"])
        files = {str(name): int(size) for name, size in state["files"].items()}
    except (UserError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise _damaged(path / _STATE, error.__cause__ or error) from error
    for name, size in files.items():
        if (found := _size(path / name)) != size:
            raise _damaged(path / name, f"{found} of {size} bytes")
    try:
        metadata = HuggingFaceStorageReader(str(path)).read_metadata()
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise _damaged(path, error) from error
    groups: dict[str, dict[str, TensorStorageMetadata]] = {}
    for full, about in metadata.state_dict_metadata.items():
        group, _, name = full.partition(".")
        assert isinstance(about, TensorStorageMetadata)
        groups.setdefault(group, {})[name] = about
    return Stored(path, step, values, groups)


def read_into(stored: Stored, tensors: Groups, *, group: dist.ProcessGroup | None = None) -> None:
    """Fill `tensors` in place, each process its own parts; shapes must be those of `stored`.

    Only what is asked for is read. `group` holds the processes that call this together.
    """
    flat = _flat(Checkpoint(stored.step, tensors, {}))
    try:
        load_parts(
            dict(flat),
            storage_reader=HuggingFaceStorageReader(str(stored.path)),
            process_group=group,
            no_dist=group is None,
        )
    except CheckpointException as error:
        raise _cause(error, f"cannot read {stored.path}") from error


def load(path: Path) -> Checkpoint:
    """Read a whole checkpoint into this process's memory; errors as of `inspect`."""
    stored = inspect(path)
    tensors = {
        group: {name: torch.empty(x.size, dtype=x.properties.dtype) for name, x in found.items()}
        for group, found in stored.tensors.items()
    }
    read_into(stored, tensors)
    return Checkpoint(stored.step, tensors, stored.values)


def _flat(checkpoint: Checkpoint) -> dict[str, Tensor]:
    return {
        f"{group}.{name}": value
        for group, tensors in checkpoint.tensors.items()
        for name, value in tensors.items()
    }


def _file_numbers(tensors: Mapping[str, Tensor], processes: int) -> dict[str, int]:
    """Number of the file of each tensor, from 1: a new one for each group, and when one is full."""
    numbers: dict[str, int] = {}
    number, filled, group = 0, 0, ""
    for name, value in tensors.items():
        if name.partition(".")[0] != group or filled > _FILE_BYTES:
            number, filled, group = number + 1, 0, name.partition(".")[0]
        numbers[name] = number
        filled += value.numel() * value.element_size() // processes
    return numbers


def _part(path: Path) -> Path:
    """Where the folder `path` is written: the same name for every process."""
    return path.with_name(f"{_PART}{path.name}")


def _complete(folder: Path) -> list[Path]:
    return sorted(p for p in folder.glob(f"{_PREFIX}*") if (p / _STATE).is_file())


def _size(file: Path) -> int:
    with os_errors(file, "find"):
        return file.stat().st_size


def _cause(error: CheckpointException, what: str) -> BaseException:
    """The first fault of any process, in our words; Ctrl-C stays what it is."""
    first = next(iter(error.failures.values()))[0]
    if isinstance(first, ContentVError) or not isinstance(first, Exception):
        return first
    if isinstance(first, OSError):
        return WorldError(f"{what}: {describe_os_error(first)}")
    return WorldError(f"{what}: {' '.join(str(first).split())}")


def _damaged(file: Path, error: object) -> WorldError:
    return WorldError(f"{file}: damaged ({error}); delete its folder to resume from the one before")
