"""What one process does for all of a run: look, write, and tell the others."""

from collections.abc import Callable
from typing import Any

from contentv.base.errors import ContentVError, UserError, WorldError
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
