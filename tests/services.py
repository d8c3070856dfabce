"""Servers and a browser for tests, which are skipped without them, unless ``FEWSTEP_REQUIRE_SERVICES`` is 1."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest


def absent(what: str) -> None:
    """Skip a test, or fail it where a skip would go unnoticed."""
    if os.environ.get("FEWSTEP_REQUIRE_SERVICES") == "1":
        pytest.fail(f"{what} is not installed, and FEWSTEP_REQUIRE_SERVICES=1 wants it")
    pytest.skip(f"{what} is not installed")


def require(module: str) -> None:
    """A module that a service needs."""
    if find_spec(module) is None:
        absent(module)


@contextmanager
def chromium() -> Iterator[Any]:
    """Debian's browser without a window, driven by Playwright; for a module, as others may want an event loop.

    Its ``new_page()`` gives a page with a profile of its own.
    """
    require("playwright")
    program = shutil.which("chromium")
    if program is None:
        absent("chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])  # which root must not have
        try:
            yield opened
        finally:
            opened.close()


class PostgreSQL:
    """A server of its own on a free port, with a user and a database ``postgres``.

    Attributes:
        url: as ``--storage`` takes it.
    """

    def __init__(self, programs: Path, folder: Path) -> None:
        self.programs, self.folder = programs, folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def do(self, program: str, *arguments: str) -> None:
        """Run one of its programs, which root must not."""
        words = [str(self.programs / program), "-D", str(self.folder / "data"), *arguments]
        other = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
        with (self.folder / "log").open("a") as log:
            subprocess.run(words, check=True, stdout=log, stderr=log, cwd=self.folder, **other)  # type: ignore[call-overload]

    def start(self, how: str = "start") -> None:
        settings = f"-c listen_addresses=127.0.0.1 -p {self.port} -k {self.folder} -c fsync=off"
        self.do("pg_ctl", "-w", "-m", "fast", "-o", settings, how)


@contextmanager
def postgresql() -> Iterator[PostgreSQL]:
    """A server that is there inside."""
    require("psycopg")
    found = [str(path) for path in Path("/usr/lib/postgresql").glob("*/bin")]  # Debian's are not on the path
    initdb = shutil.which("initdb", path=os.pathsep.join([os.environ["PATH"], *found]))
    if initdb is None:
        absent("postgresql")
    with tempfile.TemporaryDirectory() as folder:
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres", "postgres")
        server = PostgreSQL(Path(initdb or "").parent, Path(folder))
        server.do("initdb", "-A", "trust", "-U", "postgres", "--no-sync", "--no-instructions")
        server.start()
        try:
            yield server
        finally:
            server.do("pg_ctl", "-m", "immediate", "stop")
