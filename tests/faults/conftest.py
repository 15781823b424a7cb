"""Studies that are disturbed, and the rule for every test: nothing asks for a connection that leaves this machine."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faults.server import Server

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


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a study that nobody disturbed."""
    return tmp_path_factory.mktemp("undisturbed") / "results" / "s"


@pytest.fixture(scope="session")
def server(undisturbed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Runs commands."""
    found = Server(undisturbed.parents[1], tmp_path_factory.mktemp("logs"))
    yield found
    found.close()
