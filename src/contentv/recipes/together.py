"""What one process does for all of a run: look, write, and tell the others."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from contentv.base.errors import ContentVError, UserError, WorldError
from contentv.base.files import os_errors
from contentv.distributed.mesh import leave_together
from contentv.training.peers import Peers


def by_first(peers: Peers, do: Callable[[], Any]) -> Any:  # noqa: ANN401 - JSON is anything
    """What `do` gives in the first process, which must be JSON, for all of them.

    Its UserError or WorldError is raised in all of them, so that none waits for a process that has
    ended. Every process must call this.
    """
    told, error = {}, None
    if peers.is_first:
        try:
            told = {"value": do()}
        except ContentVError as caught:
            told, error = {"error": str(caught), "code": caught.exit_code}, caught
    told = peers.gather(told)[0]
    if error is not None:
        raise error
    if "error" in told:
        kind = UserError if told["code"] == UserError.exit_code else WorldError
        raise kind(told["error"])
    return told["value"]


@contextmanager
def products_folder(out: Path, peers: Peers, *, dry_run: bool) -> Iterator[Path]:
    """Where all processes keep measured sizes and latents: a run's folder `out`.

    Of a dry run it is one that is removed again.
    """
    if not dry_run:
        yield out
        return
    # Beside the run's folder, so that other machines see it too.
    place = next(path for path in (out, *out.absolute().parents) if path.is_dir())

    def make() -> str:
        with os_errors(place, "write to"):
            return mkdtemp(prefix=".contentv-dry-run-", dir=place)

    folder = Path(by_first(peers, make))
    try:
        yield folder
        leave_together()
    finally:
        if peers.is_first:
            shutil.rmtree(folder, ignore_errors=True)
