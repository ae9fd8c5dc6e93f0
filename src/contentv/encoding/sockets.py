"""Ends connections from the server's side, which neither Flight nor gRPC lets a program do."""

import contextlib
import ipaddress
import os
import socket
from pathlib import Path
from typing import TypeAlias
from urllib.parse import unquote

from contentv.base.errors import UserError

# Where a process finds its own open files, on Linux and on macOS.
_DESCRIPTORS = (Path("/proc/self/fd"), Path("/dev/fd"))

_End: TypeAlias = tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]


def hang_up(peer: str) -> bool:
    """Shut the connection of this process to `peer`, such as "ipv4:10.0.0.7:41326".

    Calls that are stuck in it fail at once, here and there. Gives whether there was one.
    """
    host, port = split_address(unquote(peer.partition(":")[2]))
    end, found = _end(host, port), False
    folder = next((folder for folder in _DESCRIPTORS if folder.is_dir()), None)
    for entry in list(folder.iterdir()) if folder else []:
        found |= _shut_if(int(entry.name), end)
    return found


def _shut_if(descriptor: int, end: _End) -> bool:
    # A copy of the descriptor: the number may by now belong to another file, the copy cannot.
    try:
        copy = os.dup(descriptor)
    except OSError:
        return False
    try:
        connection = socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        return False
    with connection, contextlib.suppress(OSError, IndexError, ValueError):
        if _end(*connection.getpeername()[:2]) == end:
            connection.shutdown(socket.SHUT_RDWR)
            return True
    return False


def split_address(address: str) -> tuple[str, int]:
    """Read HOST:PORT; UserError when it is not that."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise UserError(f"{address}: must be HOST:PORT, such as 127.0.0.1:8815")
    return host.removeprefix("[").removesuffix("]"), int(port)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _end(host: str, port: int) -> _End:
    address = ipaddress.ip_address(host.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address, port
