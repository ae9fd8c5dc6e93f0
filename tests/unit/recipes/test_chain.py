"""Stages side by side, each a real process that writes a file when it is done."""

import signal
import sys
import time
from pathlib import Path

import pytest

from contentv.base.errors import UserError, WorldError
from contentv.recipes.chain import Link, run_beside, run_chain, run_link

AFTER = {"a": (), "b": (), "c": ("a",), "d": ("b", "c")}
PROGRAM = """
import pathlib, sys, time
name, folder, *before = sys.argv[1:]
folder = pathlib.Path(folder)
assert all((folder / each).exists() for each in before), "too early"
(folder / f"{name}.begun").touch()
if name == "a":
    end = time.monotonic() + 20
    while not (folder / "b.begun").exists():
        assert time.monotonic() < end, "b does not run beside a"
        time.sleep(0.01)
print("line of", name, file=sys.stderr)
(folder / name).touch()
"""


def links(folder: Path) -> list[Link]:
    return [
        Link(name, after, (folder / name).touch, (folder / name).exists)
        for name, after in AFTER.items()
    ]


def command(folder: Path, name: str, program: str = PROGRAM) -> list[str]:
    return [sys.executable, "-c", program, name, str(folder), *AFTER[name]]


def test_one_after_another(tmp_path: Path) -> None:
    run_chain(links(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == set(AFTER)


def test_a_stage_runs_beside_others_and_after_its_own(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run_beside(links(tmp_path), 2, lambda name: command(tmp_path, name))
    assert all((tmp_path / name).exists() for name in AFTER)
    lines = capfd.readouterr().err.splitlines()
    assert {f"[{name}] line of {name}" for name in AFTER} <= set(lines)


def test_finished_stages_are_not_run_again(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    (tmp_path / "b").touch()
    run_beside(links(tmp_path), 2, lambda name: command(tmp_path, name))
    assert not (tmp_path / "a.begun").exists()
    assert (tmp_path / "d").exists()


def test_a_failing_stage_stops_the_others_and_is_named(tmp_path: Path) -> None:
    waits = (
        "import pathlib, signal, sys, time\n"
        "folder = pathlib.Path(sys.argv[2])\n"
        "def saved(*_):\n    (folder / 'saved').touch(); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, saved)\n"
        "(folder / 'a.begun').touch()\ntime.sleep(60)"
    )
    fails = (
        "import pathlib, sys, time\n"
        "folder = pathlib.Path(sys.argv[2])\n"
        "while not (folder / 'a.begun').exists(): time.sleep(0.01)\nsys.exit(3)"
    )
    programs = {"a": waits, "b": fails}
    started = time.monotonic()
    with pytest.raises(WorldError, match="stage b ended with code 3"):
        run_beside(links(tmp_path), 2, lambda name: command(tmp_path, name, programs[name]))
    assert time.monotonic() - started < 30
    assert (tmp_path / "saved").exists()


def test_ctrl_c_asks_all_stages_to_save(tmp_path: Path) -> None:
    program = (
        "import pathlib, signal, sys, time, os\n"
        "name, folder = sys.argv[1], pathlib.Path(sys.argv[2])\n"
        "def saved(*_):\n    (folder / f'{name}.saved').touch(); sys.exit(130)\n"
        "signal.signal(signal.SIGTERM, saved)\n"
        "(folder / f'{name}.begun').touch()\n"
        "while not (folder / 'a.begun').exists(): time.sleep(0.01)\n"
        f"if name == 'b': os.kill(os.getppid(), {int(signal.SIGINT)})\n"
        "time.sleep(60)"
    )
    with pytest.raises(KeyboardInterrupt):
        run_beside(links(tmp_path), 2, lambda name: command(tmp_path, name, program))
    assert (tmp_path / "a.saved").exists()
    assert (tmp_path / "b.saved").exists()


def test_one_stage_alone_waits_for_its_turn(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="stage=d: b, c must be finished first"):
        run_link(links(tmp_path), "d")
    with pytest.raises(UserError, match="stage=e: no such stage; there are a, b, c, d"):
        run_link(links(tmp_path), "e")
    run_link(links(tmp_path), "a")
    run_link(links(tmp_path), "c")
    assert (tmp_path / "c").exists()
