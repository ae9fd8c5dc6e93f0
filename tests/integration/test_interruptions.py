"""Ctrl-C, kill and a full disk in every phase of `contentv generate`, in processes of their own."""

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from builders import build_random_pipeline
from contentv.base.files import part_of
from contentv.video.io import read_video

PATIENCE = 90.0
INTERRUPTED = "contentv: interrupted; finished files are kept, nothing half-written is left"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_random_pipeline(tmp_path_factory.mktemp("models") / "random", blocks=1)


class Running:
    """The command with a terminal for its standard error, as a person sees it."""

    def __init__(self, *arguments: str, code: str = "from contentv.cli import main") -> None:
        self._terminal, slave = pty.openpty()
        self.seen = ""
        self.process = subprocess.Popen(
            [sys.executable, "-c", f"import sys; {code}; sys.exit(main())", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=slave,
        )
        os.close(slave)
        os.set_blocking(self._terminal, False)

    def wait_until(self, happened: Callable[[str], bool]) -> None:
        end = time.monotonic() + PATIENCE
        while not happened(self._read()):
            assert self.process.poll() is None, f"ended too early: {self.seen}"
            assert time.monotonic() < end, f"waited in vain: {self.seen}"
            time.sleep(0.005)

    def stop(self, number: int) -> int:
        self.process.send_signal(number)
        return self.end()

    def end(self) -> int:
        code = self.process.wait(PATIENCE)
        self._read()
        os.close(self._terminal)
        return code

    def lines(self) -> list[str]:
        """What is left on the screen: a redrawn line shows its last state."""
        whole = self.seen.replace("\r\n", "\n").split("\n")[:-1]
        return [line.rsplit("\r", 1)[-1] for line in whole]

    def _read(self) -> str:
        try:
            while data := os.read(self._terminal, 65536):
                self.seen += data.decode()
        except OSError:  # nothing now, or the process is gone
            pass
        return self.seen


def is_loading(seen: str) -> bool:  # noqa: ARG001
    time.sleep(0.7)  # in the middle of importing torch
    return True


def is_denoising(seen: str) -> bool:
    return "sampling: " in seen


def parts(folder: Path) -> Iterator[Path]:
    return folder.glob(".part-*")


@pytest.mark.parametrize("phase", ["loading", "denoising", "writing"])
def test_ctrl_c_is_one_line_and_leaves_no_file(model: Path, tmp_path: Path, phase: str) -> None:
    long = ["--num-inference-steps", "1000"] if phase != "writing" else ["--num-frames", "401"]
    prompt = "a red circle moves left"
    running = Running("generate", prompt, "--model", str(model), "--out", str(tmp_path), *long)
    ready = {
        "loading": is_loading,
        "denoising": is_denoising,
        "writing": lambda _: any(parts(tmp_path)),
    }
    running.wait_until(ready[phase])
    assert running.stop(signal.SIGINT) == 130, running.seen
    assert running.lines()[-1] == INTERRUPTED
    assert [line for line in running.lines() if "sampling:" not in line] == [INTERRUPTED]
    assert list(tmp_path.iterdir()) == []


def test_a_killed_batch_goes_on_where_it_was(model: Path, tmp_path: Path) -> None:
    prompts = ["a red circle moves left", "a small blue square stays", "a big green circle"]
    steps = ["--num-frames", "5", "--num-inference-steps", "40"]
    arguments = ["generate", *prompts, "--model", str(model), *steps]
    killed = Running(*arguments, "--out", str(tmp_path / "killed"))
    killed.wait_until(lambda _: len(list((tmp_path / "killed").glob("[!.]*.mp4"))) >= 1)
    assert killed.stop(signal.SIGKILL) == -signal.SIGKILL
    finished = {file: file.stat().st_mtime_ns for file in (tmp_path / "killed").glob("[!.]*.mp4")}
    assert 1 <= len(finished) < 3
    for file in finished:
        assert len(read_video(file).frames) == 5
        assert json.loads(file.with_suffix(".json").read_text())["job"]["num_frames"] == 5
    # A process killed while writing leaves a hidden file, as if it had been this one.
    part_of(tmp_path / "killed" / "a-big-green-circle_seed0.mp4", killed.process.pid).touch()

    resumed = Running(*arguments, "--out", str(tmp_path / "killed"))
    assert resumed.end() == 0, resumed.seen
    assert resumed.lines()[0] == f"{len(finished)} of 3 videos were finished before"
    assert {file: file.stat().st_mtime_ns for file in finished} == finished
    assert len(list((tmp_path / "killed").iterdir())) == 6

    whole = Running(*arguments, "--out", str(tmp_path / "whole"))
    assert whole.end() == 0, whole.seen
    for file in (tmp_path / "whole").iterdir():
        assert (tmp_path / "killed" / file.name).read_bytes() == file.read_bytes()


def test_a_full_disk_is_one_line_and_leaves_no_file(model: Path, tmp_path: Path) -> None:
    # A limit on the size of files fails where a full disk does, without being root.
    limit = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)); "
        "from contentv.cli import main"
    )
    out = ["--out", str(tmp_path), "--num-frames", "5"]
    running = Running("generate", "a circle", "--model", str(model), *out, code=limit)
    assert running.end() == 1, running.seen
    last = running.lines()[-1]
    assert last.startswith(f"contentv: cannot write {tmp_path}/a-circle_seed0.mp4: ")
    assert list(tmp_path.iterdir()) == []


def test_homes_and_caches_that_cannot_be_written_do_not_matter(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HOME", "HF_HOME", "XDG_CACHE_HOME", "TORCH_HOME"):
        monkeypatch.setenv(name, "/proc/nowhere")
    few = ["--num-frames", "1", "--num-inference-steps", "1"]
    running = Running("generate", "a circle", "--model", str(model), "--out", str(tmp_path), *few)
    assert running.end() == 0, running.seen
    # Where it is installed, diffusers imports onnxruntime, whose own code writes to the terminal.
    ours = [line for line in running.lines() if "onnxruntime:" not in line]
    assert [line for line in ours if "sampling:" not in line] == []
