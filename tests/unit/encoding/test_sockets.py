import socket

import pytest

from contentv.base.errors import UserError
from contentv.encoding.sockets import hang_up, is_loopback, split_address


@pytest.mark.parametrize(
    ("host", "name"), [("127.0.0.1", "ipv4:127.0.0.1:{}"), ("::1", "ipv6:%5B::1%5D:{}")]
)
def test_only_the_connection_to_that_peer_ends(host: str, name: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, 0), family=family)
    except OSError:
        pytest.skip(f"this machine has no {host}")
    with listener, socket.create_connection(listener.getsockname()[:2]) as one:
        ours, _ = listener.accept()
        with socket.create_connection(listener.getsockname()[:2]) as two, ours:
            other, _ = listener.accept()
            with other:
                assert hang_up(name.format(one.getsockname()[1]))
                assert one.recv(1) == b""
                other.send(b"x")
                assert two.recv(1) == b"x"
    assert not hang_up(name.format(1))


def test_addresses() -> None:
    assert split_address("127.0.0.1:8815") == ("127.0.0.1", 8815)
    assert split_address("[::1]:0") == ("::1", 0)
    for wrong in ("8815", "host", "host:", "host:x", "host:70000", ":1"):
        with pytest.raises(UserError, match="must be HOST:PORT"):
            split_address(wrong)


def test_who_is_this_machine_only() -> None:
    assert [is_loopback(h) for h in ("127.0.0.1", "::1", "localhost", "127.9.9.9")] == [True] * 4
    assert [is_loopback(h) for h in ("0.0.0.0", "::", "10.0.0.7", "encoder-1")] == [False] * 4
