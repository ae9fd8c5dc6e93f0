"""Log lines on standard error; standard output belongs to results."""

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_ROOT = "contentv"
# Libraries set their own loggers' levels, some below the package's: each is named.
_CHATTY = (
    *("diffusers", "diffusers.quantizers", "transformers", "huggingface_hub"),
    *("torch", "torch.utils._pytree", "torchao", "bitsandbytes"),
)


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


def quiet_libraries(*, debug: bool) -> None:
    """Set up our log lines and, but for `debug`, silence the libraries below ERROR."""
    setup_logging(verbose=debug)
    if not debug:
        warnings.simplefilter("ignore")
        for name in _CHATTY:
            logging.getLogger(name).setLevel(logging.ERROR)


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
