import os
import shutil
import signal
from pathlib import Path

import pytest
import torch

from contentv.base.errors import WorldError
from contentv.distributed import checkpoint
from contentv.distributed.checkpoint import Checkpoint, latest, load, save


def made(step: int) -> Checkpoint:
    tensors = {
        "model": {"a.weight": torch.full((3, 2), float(step)), "b": torch.tensor(step)},
        "ema": {"a.weight": torch.full((3, 2), -float(step))},
        "optimizer": {},
    }
    return Checkpoint(step, tensors, {"config": {"name": "ünïcode", "betas": [0.9, 0.99]}})


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_checkpoint_comes_back_bit_for_bit(tmp_path: Path) -> None:
    saved = made(7)
    path = save(tmp_path, saved)
    assert path == tmp_path / "step-00000007" == latest(tmp_path)
    loaded = load(path)
    assert loaded.step == 7
    assert loaded.values == saved.values
    assert loaded.tensors.keys() == saved.tensors.keys()
    for group, tensors in saved.tensors.items():
        assert loaded.tensors[group].keys() == tensors.keys()
        for name, tensor in tensors.items():
            assert torch.equal(loaded.tensors[group][name], tensor)
            assert loaded.tensors[group][name].dtype == tensor.dtype


def test_views_are_saved_by_value(tmp_path: Path) -> None:
    grid = torch.arange(6.0).view(2, 3)
    path = save(tmp_path, Checkpoint(1, {"model": {"columns": grid.t()}}, {}))
    assert torch.equal(load(path).tensors["model"]["columns"], grid.t())


def test_the_newest_two_are_kept(tmp_path: Path) -> None:
    for step in (5, 90, 100, 1000):
        save(tmp_path, made(step))
    assert names(tmp_path) == ["step-00000100", "step-00001000"]
    save(tmp_path, made(2000), keep=1)
    assert names(tmp_path) == ["step-00002000"]


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    save(tmp_path, made(3))
    other = Checkpoint(3, {"model": {"x": torch.ones(1)}}, {})
    save(tmp_path, other)
    assert names(tmp_path) == ["step-00000003"]
    assert load(tmp_path / "step-00000003").tensors.keys() == {"model"}


def test_only_complete_folders_count(tmp_path: Path) -> None:
    assert latest(tmp_path) is None
    assert latest(tmp_path / "absent") is None
    save(tmp_path, made(1))
    half = tmp_path / "step-00000009"
    shutil.copytree(tmp_path / "step-00000001", half)
    (half / "state.json").unlink()
    shutil.copytree(tmp_path / "step-00000001", tmp_path / ".step-00000008.1.part")
    assert latest(tmp_path) == tmp_path / "step-00000001"


def test_a_folder_that_was_being_removed_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Removal stops half-way: the folder must not look like a checkpoint."""
    save(tmp_path, made(1))

    def interrupted(path: Path) -> None:
        (path / "model.safetensors").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.shutil, "rmtree", interrupted)
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path, made(2), keep=1)
    shutil.rmtree(tmp_path / "step-00000002")
    assert latest(tmp_path) is None


def die_at_file(number: int) -> None:
    """Make the writing of that file of a checkpoint, counted from 1, end in the process's death."""
    written = 0

    def save_file(tensors: dict[str, torch.Tensor], path: Path) -> None:
        nonlocal written
        written += 1
        if written == number:
            path.write_bytes(b"half a file")
            os.kill(os.getpid(), signal.SIGKILL)
        save_tensors(tensors, path)

    def write_json(_: Path, __: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    save_tensors = checkpoint.save_file
    checkpoint.save_file = save_file
    checkpoint.write_json = write_json


@pytest.mark.parametrize("file", [2, 4], ids=["inside the second file", "before state.json"])
def test_a_kill_between_files_leaves_the_checkpoint_before(tmp_path: Path, file: int) -> None:
    save(tmp_path, made(1))
    child = os.fork()
    if child == 0:
        try:
            die_at_file(file)
            save(tmp_path, made(2))
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert len(names(tmp_path)) == 2  # the half-written folder, under a name that does not count
    assert latest(tmp_path) == tmp_path / "step-00000001"
    assert load(tmp_path / "step-00000001").step == 1
    save(tmp_path, made(2))  # what the killed process left is in nobody's way, and goes
    assert names(tmp_path) == ["step-00000001", "step-00000002"]


@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.99])
@pytest.mark.parametrize("file", ["model.safetensors", "state.json"])
def test_a_truncated_file_is_one_line_that_names_it(tmp_path: Path, file: str, kept: float) -> None:
    path = save(tmp_path, made(1))
    data = (path / file).read_bytes()
    # Without its final newline JSON is whole, so cut deeper.
    (path / file).write_bytes(data[: int((len(data) - 2) * kept)])
    with pytest.raises(WorldError, match=f"{file}: damaged") as error:
        load(path)
    assert "\n" not in str(error.value)
    assert "delete its folder" in str(error.value)


@pytest.mark.parametrize("content", ["[]", "{}", '{"step": 1}', '{"step": "x", "values": {}}'])
def test_a_foreign_state_is_one_line(tmp_path: Path, content: str) -> None:
    path = save(tmp_path, made(1))
    (path / "state.json").write_text(content)
    with pytest.raises(WorldError, match=r"state.json: damaged"):
        load(path)
