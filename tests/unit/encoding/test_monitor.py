import socket
import urllib.error
import urllib.request

import pytest

from contentv.base.errors import UserError
from contentv.encoding.monitor import monitor


def get(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        return answer.read().decode()


def test_pages_are_made_when_they_are_asked_for() -> None:
    numbers = iter(range(9))
    with monitor(0, {"/metrics": lambda: f"count {next(numbers)}\n"}) as port:
        assert [get(port, "/metrics") for _ in range(2)] == ["count 0\n", "count 1\n"]
        with pytest.raises(urllib.error.HTTPError, match="404"):
            get(port, "/etc/passwd")


def test_a_silent_connection_does_not_stop_others() -> None:
    with (
        monitor(0, {"/health": lambda: "fine"}) as port,
        socket.create_connection(("127.0.0.1", port)),
    ):
        assert get(port, "/health") == "fine"


def test_a_port_that_is_taken() -> None:
    with (
        monitor(0, {}) as port,
        pytest.raises(UserError, match=f"metrics_port={port}: "),
        monitor(port, {}),
    ):
        pass


def test_it_is_gone_afterwards() -> None:
    with monitor(0, {}) as port:
        pass
    with pytest.raises(OSError, match=r"refused|reset"):
        socket.create_connection(("127.0.0.1", port))
