"""Studies that are disturbed, and the rule for every test: nothing asks for a connection that leaves this machine."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faults.server import Server

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


@pytest.fixture(scope="module")
def asked() -> Iterator[list[object]]:
    """Hosts that something asked for, beyond the loopback; each was refused."""
    found: list[object] = []
    connect, getaddrinfo = socket.socket.connect, socket.getaddrinfo

    def local(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and address[0] not in _LOOPBACK:
            found.append(address)
            raise OSError("no connections")
        connect(self, address)

    def known(host: Any, *args: Any, **kwargs: Any) -> Any:
        if host not in (*_LOOPBACK, None):
            found.append(host)
            raise OSError("no names")
        return getaddrinfo(host, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", local)
        patch.setattr(socket, "getaddrinfo", known)
        yield found


@pytest.fixture(autouse=True)
def no_network(asked: list[object]) -> Iterator[None]:
    """Fail where a test asked for a host, whatever caught the refusal."""
    asked.clear()
    yield
    assert asked == []


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
