"""What a server says of itself to people and to Prometheus, over HTTP on this machine only."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from contentv.base.errors import UserError
from contentv.base.files import describe_os_error

Page = Callable[[], str]


@contextmanager
def monitor(port: int, pages: Mapping[str, Page]) -> Iterator[int]:
    """Serve pages such as {"/metrics": ...} on 127.0.0.1 for the body; gives the port.

    UserError when the port is taken.
    """
    handler = type("Handler", (_Handler,), {"pages": dict(pages)})
    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), handler)
    except OSError as error:
        reason = describe_os_error(error)
        raise UserError(f"metrics_port={port}: {reason}; choose another") from error
    with server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()


class _Handler(BaseHTTPRequestHandler):
    pages: Mapping[str, Page] = {}
    timeout = 5.0  # seconds that a connection may say nothing

    def do_GET(self) -> None:
        """Answer with a page, or 404."""
        page = self.pages.get(self.path)
        body = (page() if page else f"there are {', '.join(self.pages)}\n").encode()
        self.send_response(200 if page else 404)
        self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Say nothing: being asked is no news."""
