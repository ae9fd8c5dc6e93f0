"""Commands as a person runs them: in processes of their own, that can be watched and killed."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

PATIENCE = 120.0


class Command:
    """A running `contentv`, or the program `main` with its command line; killed at the end.

    What it says on stderr goes to the file `log`.
    """

    def __init__(
        self, words: Sequence[str], log: Path, *, main: Sequence[str] = ("-m", "contentv.cli")
    ) -> None:
        self.log = log
        with log.open("a") as file:
            self.process = subprocess.Popen(
                [sys.executable, *main, *words],
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def ends(self, number: int | None = None) -> tuple[int, str]:
        """Exit code and stdout, once it has ended; `number` is a signal to send before."""
        if number is not None:
            self.process.send_signal(number)
        said = self.process.communicate(timeout=PATIENCE)[0]
        return self.process.returncode, said

    def pause(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def says(self, pattern: str) -> str:
        """The first group of `pattern`, once that is in the log."""

        def found() -> re.Match[str] | None:
            return re.search(pattern, self.log.read_text())

        self.until(lambda: found() is not None)
        match = found()
        assert match is not None
        return match[1]

    def until(self, is_so: Callable[[], bool]) -> None:
        """Wait for something while the command runs."""
        end = time.monotonic() + PATIENCE
        while not is_so():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.02)
