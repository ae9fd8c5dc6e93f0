"""Log lines on standard error; standard output belongs to results."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_ROOT = "contentv"


def get_logger(name: str) -> logging.Logger:
    """Give the logger of a module; pass `__name__`."""
    return logging.getLogger(name if name.startswith(_ROOT) else f"{_ROOT}.{name}")


def setup_logging(*, verbose: bool = False) -> None:
    """Show our log lines on standard error: INFO and above; `verbose` adds DEBUG and the time.

    Called by programs, never by the library. Calling it again replaces the first set-up.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        logging.Formatter("%(asctime)s %(name)s: %(message)s" if verbose else "%(message)s")
    )
    root = logging.getLogger(_ROOT)
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG if verbose else logging.INFO)
    root.propagate = False


@contextmanager
def only_errors(*, wanted: bool) -> Iterator[None]:
    """Where `wanted`, hold back lines below ERROR: of many processes one is enough to tell them."""
    root = logging.getLogger(_ROOT)
    before = root.level
    if wanted:
        root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(before)
