"""The demo, served inside for tests."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from fewstep.demo.models import Models
from fewstep.demo.server import Server


@contextmanager
def served(models: Models) -> Iterator[Server]:
    """A server on a free port."""
    with Server(models) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
