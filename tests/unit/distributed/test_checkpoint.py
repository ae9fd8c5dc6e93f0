import os
import random
import resource
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch

from contentv.base.errors import WorldError
from contentv.distributed import checkpoint
from contentv.distributed.checkpoint import (
    Checkpoint,
    CheckpointWriter,
    inspect,
    latest,
    load,
    read_into,
)


def made(step: int, size: int = 2) -> Checkpoint:
    tensors = {
        "model": {"a.weight": torch.full((3, size), float(step)), "b": torch.tensor(step)},
        "ema": {"a.weight": torch.full((3, size), -float(step)).bfloat16()},
        "optimizer": {},
    }
    return Checkpoint(step, tensors, {"config": {"name": "ünïcode", "betas": [0.9, 0.99]}})


def save(folder: Path, content: Checkpoint, *, keep: int = 2) -> Path:
    with CheckpointWriter(folder, keep=keep) as writer:
        return writer.save(content)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def in_child(body: Callable[[], None]) -> int:
    """Run `body` in a child process; gives what `waitpid` says of its end."""
    child = os.fork()
    if child == 0:
        try:
            body()
        finally:
            os._exit(0)
    return os.waitpid(child, 0)[1]


def test_a_checkpoint_comes_back_bit_for_bit(tmp_path: Path) -> None:
    saved = made(7)
    path = save(tmp_path, saved)
    assert path == tmp_path / "step-00000007" == latest(tmp_path)
    loaded = load(path)
    assert loaded.step == 7
    assert loaded.values == saved.values
    assert loaded.tensors.keys() == {"model", "ema"}  # a group without tensors leaves no trace
    for group in loaded.tensors:
        assert loaded.tensors[group].keys() == saved.tensors[group].keys()
        for name, tensor in saved.tensors[group].items():
            assert torch.equal(loaded.tensors[group][name], tensor)
            assert loaded.tensors[group][name].dtype == tensor.dtype


def test_nothing_in_a_checkpoint_is_pickled(tmp_path: Path) -> None:
    path = save(tmp_path, made(1))
    assert {file.suffix for file in path.iterdir()} == {".safetensors", ".json"}
    for file in path.glob("*.safetensors"):
        assert file.read_bytes()[8:9] == b"{"  # a header of JSON after its length


def test_views_are_saved_by_value(tmp_path: Path) -> None:
    grid = torch.arange(6.0).view(2, 3)
    views = {"columns": grid.t(), "row": grid[1], "all": grid}
    loaded = load(save(tmp_path, Checkpoint(1, {"model": views}, {}))).tensors["model"]
    assert all(torch.equal(loaded[name], value) for name, value in views.items())


def test_what_is_saved_is_what_was_there_when_save_returned(tmp_path: Path) -> None:
    weight = torch.zeros(1000, 1000)
    with CheckpointWriter(tmp_path) as writer:
        path = writer.save(Checkpoint(1, {"model": {"w": weight}}, {}))
        weight += 1
    assert not load(path).tensors["model"]["w"].any()


def test_large_groups_are_cut_into_files_of_bounded_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "_FILE_BYTES", 1000)
    tensors = {"model": {f"w{i}": torch.randn(100) for i in range(10)}, "ema": {"w": torch.ones(1)}}
    path = save(tmp_path, Checkpoint(1, tensors, {}))
    sizes = [file.stat().st_size for file in path.glob("*.safetensors")]
    assert len(sizes) == 5
    assert max(sizes) < 1000 + 400 + 600  # the limit, the tensor that passes it, the header
    loaded = load(path).tensors
    assert all(torch.equal(loaded["model"][name], x) for name, x in tensors["model"].items())


def test_a_group_alone_can_be_read_in_place(tmp_path: Path) -> None:
    stored = inspect(save(tmp_path, made(4)))
    assert stored.step == 4
    assert stored.tensors["model"]["a.weight"].size == (3, 2)
    weight = torch.zeros(3, 2, dtype=torch.bfloat16)
    read_into(stored, {"ema": {"a.weight": weight}})
    assert torch.equal(weight, made(4).tensors["ema"]["a.weight"])


def test_the_newest_two_are_kept(tmp_path: Path) -> None:
    for step in (5, 90, 100, 1000):
        save(tmp_path, made(step))
    assert names(tmp_path) == ["step-00000100", "step-00001000"]
    save(tmp_path, made(2000), keep=1)
    assert names(tmp_path) == ["step-00002000"]


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    save(tmp_path, made(3))
    save(tmp_path, Checkpoint(3, {"model": {"x": torch.ones(1)}}, {}))
    assert names(tmp_path) == ["step-00000003"]
    assert load(tmp_path / "step-00000003").tensors.keys() == {"model"}


def test_only_complete_folders_count(tmp_path: Path) -> None:
    assert latest(tmp_path) is None
    assert latest(tmp_path / "absent") is None
    save(tmp_path, made(1))
    half = tmp_path / "step-00000009"
    shutil.copytree(tmp_path / "step-00000001", half)
    (half / "state.json").unlink()
    shutil.copytree(tmp_path / "step-00000001", tmp_path / ".part-step-00000008")
    assert latest(tmp_path) == tmp_path / "step-00000001"


def test_a_folder_that_was_being_removed_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Removal stops half-way: the folder must not look like a checkpoint."""
    save(tmp_path, made(1))

    remove = shutil.rmtree

    def interrupted(path: Path, **options: bool) -> None:
        if path.name == "step-00000001":
            next(path.glob("*.safetensors")).unlink()
            raise KeyboardInterrupt
        remove(path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.shutil, "rmtree", interrupted)
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path, made(2), keep=1)
    assert names(tmp_path) == ["step-00000001", "step-00000002"]
    assert latest(tmp_path) == tmp_path / "step-00000002"
    shutil.rmtree(tmp_path / "step-00000002")
    assert latest(tmp_path) is None


def die_at_file(number: int) -> None:
    """Make the writing of that file of a checkpoint, counted from 1, end in the process's death."""
    written = 0
    serialize = safetensors.torch.save

    def dies(*args: object, **kwargs: object) -> bytes:
        nonlocal written
        written += 1
        if written == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return serialize(*args, **kwargs)

    safetensors.torch.save = dies
    checkpoint.write_json = lambda *_: os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("file", [1, 2, 3], ids=["at the first file", "second", "state.json"])
def test_a_kill_between_files_leaves_the_checkpoint_before(tmp_path: Path, file: int) -> None:
    save(tmp_path, made(1))

    def body() -> None:
        die_at_file(file)
        save(tmp_path, made(2))

    status = in_child(body)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert len(names(tmp_path)) == 2  # the half-written folder, under a name that does not count
    assert latest(tmp_path) == tmp_path / "step-00000001"
    assert load(tmp_path / "step-00000001").step == 1
    save(tmp_path, made(2))  # what the killed process left is in nobody's way, and goes
    assert names(tmp_path) == ["step-00000001", "step-00000002"]


def test_a_kill_at_any_moment_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    """A child saves without end, and is killed at a random moment; what is there must be whole."""
    rng = random.Random(0)
    save(tmp_path, made(1, size=300_000))
    for _ in range(5):
        child = os.fork()
        if child == 0:
            with CheckpointWriter(tmp_path) as writer:
                for step in range(load(latest(tmp_path)).step + 1, 10_000):
                    writer.save(made(step, size=300_000))
            os._exit(1)
        time.sleep(rng.uniform(0.05, 0.3))
        os.kill(child, signal.SIGKILL)
        assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
        loaded = load(latest(tmp_path))
        assert (loaded.tensors["model"]["a.weight"] == loaded.step).all()
        assert (
            loaded.tensors["ema"]["a.weight"] == made(loaded.step).tensors["ema"]["a.weight"][0, 0]
        ).all()
    assert load(latest(tmp_path)).step > 1


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    """A size limit on files stands for the disk: the same error comes from the same call."""
    save(tmp_path, made(1))
    said = tmp_path.with_name("said.txt")

    def body() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            save(tmp_path, made(2, size=100_000))
        except WorldError as error:
            said.write_text(str(error))

    in_child(body)
    message = said.read_text()
    assert "\n" not in message
    assert message.startswith(f"cannot write {tmp_path / 'step-00000002'}: the file would exceed")
    assert names(tmp_path) == ["step-00000001"]
    assert load(latest(tmp_path)).step == 1


def test_a_failed_save_is_told_by_the_next(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.write_text("a file is in the way")
    writer = CheckpointWriter(folder)
    writer.save(made(1))
    with pytest.raises(WorldError, match=r"cannot write .*step-00000001"):
        writer.save(made(2))


def test_a_file_cut_short_at_any_byte_is_one_line_that_names_it(tmp_path: Path) -> None:
    path = save(tmp_path, made(1))
    for file in sorted(path.iterdir()):
        data = file.read_bytes()
        # Without its final newline JSON is whole.
        for size in range(len(data) - (file.suffix == ".json")):
            file.write_bytes(data[:size])
            with pytest.raises(WorldError, match=f"{file.name}: damaged") as error:
                inspect(path)
            assert "\n" not in str(error.value)
            assert "delete its folder" in str(error.value)
        file.write_bytes(data)
    assert load(path).step == 1


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    path = save(tmp_path, made(1))
    file = min(path.glob("*.safetensors"))
    file.unlink()
    with pytest.raises(WorldError, match=f"cannot find .*{file.name}"):
        inspect(path)


def test_a_header_of_rubbish_is_one_line(tmp_path: Path) -> None:
    path = save(tmp_path, made(1))
    file = min(path.glob("*.safetensors"))
    file.write_bytes(b"\xff" * file.stat().st_size)
    with pytest.raises(WorldError, match="damaged") as error:
        inspect(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "content",
    ["[]", "{}", '{"step": 1, "values": {}}', '{"step": "x", "values": {}, "files": {}}'],
)
def test_a_foreign_state_is_one_line(tmp_path: Path, content: str) -> None:
    path = save(tmp_path, made(1))
    (path / "state.json").write_text(content)
    with pytest.raises(WorldError, match=r"state.json: damaged"):
        inspect(path)
