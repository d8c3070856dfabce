"""The demo's server, on a free port, for all of its tests."""

import threading
from collections.abc import Iterator

import pytest

from fewstep.demo.models import Models, models
from fewstep.demo.server import Server


@pytest.fixture(scope="session")
def shipped() -> Models:
    return models()


@pytest.fixture(scope="session")
def server(shipped: Models) -> Iterator[Server]:
    with Server(shipped) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()
