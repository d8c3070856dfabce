"""The demo's server, on a free port, for all of its tests."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from serving import served

from fewstep.demo.guard import is_local
from fewstep.demo.models import Models, models
from fewstep.demo.server import Server


@pytest.fixture(scope="session")
def shipped() -> Models:
    return models()


@pytest.fixture(scope="module")  # other tests may connect to what they like
def server(shipped: Models) -> Iterator[Server]:
    """It may itself connect to no other machine, nor look for one."""
    asked, connect, look = list[str](), socket.socket.connect, socket.getaddrinfo

    def connected(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX:
            asked.append(address[0])
        connect(self, address)

    def looked(host: Any, *rest: Any, **more: Any) -> Any:
        asked.append(host)
        return look(host, *rest, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", connected)
        patch.setattr(socket, "getaddrinfo", looked)
        with served(shipped) as server:
            yield server
    assert [one for one in asked if not is_local(one)] == []
