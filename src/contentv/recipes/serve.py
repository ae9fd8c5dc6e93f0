"""`contentv serve`: encodes for trainers elsewhere, which ask for batches of a recipe's stages."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from contentv.base.log import get_logger
from contentv.encoding.certificates import read_server
from contentv.encoding.config import ServeConfig
from contentv.encoding.monitor import monitor
from contentv.encoding.server import EncodeServer
from contentv.recipes.autotune import AutotuneResult, autotune
from contentv.recipes.served import open_stages
from contentv.training.signals import stop_signals

_log = get_logger(__name__)


@dataclass(frozen=True)
class ServeResult:
    """How it ended."""

    all_finished: bool

    @property
    def exit_code(self) -> int:
        """1 when requests were cut off."""
        return 0 if self.all_finished else 1

    def __str__(self) -> str:
        return (
            "stopped; every request was finished"
            if self.all_finished
            else "stopped; some requests took too long and were cut off"
        )


def run(config: ServeConfig) -> ServeResult | AutotuneResult:
    """Serve until SIGINT or SIGTERM, then finish what is under way; or measure only.

    Raises:
        UserError: clips, recipe and model do not fit, or it cannot listen as asked.
        WorldError: the model is damaged, or the cache cannot be written.
    """
    if config.autotune:
        return autotune(config)
    with serving(config) as server, stop_signals() as stop:
        _log.info("%s: serving; Ctrl-C ends it", server.address)
        stop.wait()
        return ServeResult(server.drain())


@contextmanager
def serving(config: ServeConfig) -> Iterator[EncodeServer]:
    """A server that listens for the body and, if asked to, tells of itself."""
    credentials = read_server(config.tls) if config.tls else None
    stages = open_stages(config, config.cache / "latents")
    server = EncodeServer(
        [stage.offer for stage in stages], bind=config.bind, credentials=credentials
    )
    with ExitStack() as stack:
        stack.callback(server.drain)
        if config.metrics_port is not None:
            pages = {"/metrics": server.metrics, "/health": server.health}
            port = stack.enter_context(monitor(config.metrics_port, pages))
            _log.info("http://127.0.0.1:%d/metrics and /health", port)
        yield server
