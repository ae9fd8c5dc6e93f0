import os
import subprocess
import sys
from pathlib import Path

import pytest

from builders import build_random_pipeline
from contentv.base.errors import UserError
from contentv.base.files import read_json
from contentv.recipes.config import TrainConfig
from contentv.recipes.run import run


def test_training_in_many_processes_that_would_not_know_of_each_other_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    with pytest.raises(UserError, match="torchrun: contentv train trains in one process"):
        run(TrainConfig(recipe="smoke"))


@pytest.mark.slow
def test_generate_shares_the_work_of_a_video(tmp_path: Path) -> None:
    """Two processes take guidance apart: the same bits, one file, told once."""
    model = build_random_pipeline(tmp_path / "model", blocks=1)
    started = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    hashes, told = [], []
    for name, start in (("alone", [sys.executable]), ("shared", [*started, "--nproc-per-node=2"])):
        out = tmp_path / name
        asked = ["generate", "a red circle", "--model", str(model), "--out", str(out)]
        done = subprocess.run(
            [*start, "-m", "contentv.cli", *asked],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"{out}/a-red-circle_seed0.mp4\n"
        told.append(done.stderr.count("2 processes: guidance's two passes apart"))
        hashes.append(read_json(out / "a-red-circle_seed0.json")["frames_sha256"])
    assert told == [0, 1]
    assert hashes[0] == hashes[1]
