"""Every test of faults fails where something asks for a connection that leaves this machine."""

from __future__ import annotations

import socket
from typing import Any

import pytest

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse every connection but to the loopback, and every name but its own."""
    connect, getaddrinfo = socket.socket.connect, socket.getaddrinfo

    def local(self: socket.socket, address: Any) -> None:
        assert self.family == socket.AF_UNIX or address[0] in _LOOPBACK, address
        connect(self, address)

    def known(host: Any, *args: Any, **kwargs: Any) -> Any:
        assert host in (*_LOOPBACK, None), host
        return getaddrinfo(host, *args, **kwargs)

    monkeypatch.setattr(socket.socket, "connect", local)
    monkeypatch.setattr(socket, "getaddrinfo", known)
