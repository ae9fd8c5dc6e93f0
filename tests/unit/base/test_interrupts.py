"""Ctrl-C at once, and Ctrl-C after an import, each in a process of its own."""

import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from contentv.base.interrupts import INTERRUPTED, raising_between_imports


def run(code: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True, text=True, cwd=cwd, timeout=60, check=False,
    )  # fmt: skip


def test_a_body_without_anything_to_clean_up_ends_with_one_line(tmp_path: Path) -> None:
    ended = run(
        """
        import os, signal
        from contentv.base.interrupts import ending_at_once
        with ending_at_once("stopped"):
            try:
                os.kill(os.getpid(), signal.SIGINT)
            finally:
                print("never reached")
        """,
        tmp_path,
    )
    assert (ended.returncode, ended.stderr, ended.stdout) == (INTERRUPTED, "stopped\n", "")


def test_an_import_under_way_is_finished_first(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\n"
        "time.sleep(0.2)\nprint('imported')\n"
    )
    ended = run(
        """
        import time
        from contentv.base.interrupts import raising_between_imports
        try:
            with raising_between_imports():
                import slow
                time.sleep(30)
        except KeyboardInterrupt:
            print("raised")
        """,
        tmp_path,
    )
    assert ended.stdout == "imported\nraised\n", ended.stderr


def test_handlers_are_given_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), raising_between_imports():
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) == before
