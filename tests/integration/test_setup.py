"""`scripts/setup.sh`: what is missing is said in one line, and nothing is done twice."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OLD_PYTHON = '[ "$1" = --version ] && echo "Python 3.9.2" && exit 0\nexit 1\n'
PYTHON_WITHOUT_VENV = f'case "$*" in *ensurepip*) exit 1;; esac\nexec {sys.executable} "$@"\n'
FULL_DISK = "printf 'Filesystem Size Used Available\\nx 9 9 2000000\\n'\n"


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """As much of a clone as setting up needs."""
    folder = tmp_path / "clone"
    (folder / "scripts").mkdir(parents=True)
    shutil.copy(ROOT / "scripts" / "setup.sh", folder / "scripts")
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A folder at the front of PATH."""
    folder = tmp_path / "tools"
    folder.mkdir()
    return folder


def program(folder: Path, name: str, body: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}")
    path.chmod(0o755)
    return path


def set_up(clone: Path, tools: Path, **settings: str) -> tuple[int, str]:
    """Run it; give the exit code and the last line of what it said."""
    path = f"{tools}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHON": sys.executable, **settings}
    command = ["sh", str(clone / "scripts" / "setup.sh")]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return result.returncode, (result.stderr or result.stdout or "\n").splitlines()[-1]


def test_python_too_old(clone: Path, tools: Path) -> None:
    python = program(tools, "python3", OLD_PYTHON)
    code, line = set_up(clone, tools, PYTHON=str(python))
    assert code == 1
    assert line.startswith("error: Python 3.11 or newer is needed, found Python 3.9.2")


def test_no_python(clone: Path, tools: Path) -> None:
    code, line = set_up(clone, tools, PYTHON=str(tools / "python9"))
    assert code == 1
    assert "found no" in line


def test_no_venv_module(clone: Path, tools: Path) -> None:
    python = program(tools, "python3", PYTHON_WITHOUT_VENV)
    code, line = set_up(clone, tools, PYTHON=str(python))
    assert code == 1
    assert line.endswith("install its venv module (Debian, Ubuntu: apt install python3-venv)")


def test_disk_too_small(clone: Path, tools: Path) -> None:
    program(tools, "df", FULL_DISK)
    code, line = set_up(clone, tools)
    assert code == 1
    assert line.startswith("error: 1 GB are free")
    assert not (clone / ".venv").exists()


@pytest.mark.slow
def test_registry_unreachable(clone: Path, tools: Path) -> None:
    nowhere = "http://127.0.0.1:9/simple"
    hidden = {"PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": "", "PIP_EXTRA_INDEX_URL": ""}
    code, line = set_up(clone, tools, PIP_INDEX_URL=nowhere, PIP_RETRIES="1", **hidden)
    assert code == 1
    assert line.startswith("error: the package registry cannot be reached")
    assert not list((clone / ".venv").glob("installed-*"))


def test_nothing_is_done_twice(clone: Path, tools: Path) -> None:
    """Once the stamp agrees with the files, no Python is started and nothing is printed."""
    binaries = clone / ".venv" / "bin"
    binaries.mkdir(parents=True)
    program(binaries, "python", "exit 1\n")
    no_python = str(tools / "python9")
    assert set_up(clone, tools, PYTHON=no_python)[0] == 1
    decides = "{ cat pyproject.toml constraints.txt; printf '%s\\n' \"$PWD\" ''; } | cksum"
    stamp = subprocess.check_output(["sh", "-c", decides], cwd=clone, text=True)
    (clone / ".venv" / "installed-core").write_text(stamp)
    assert set_up(clone, tools, PYTHON=no_python) == (0, "")
    (clone / "constraints.txt").write_text("torch==0\n")
    assert set_up(clone, tools, PYTHON=no_python)[0] == 1
