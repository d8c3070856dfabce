"""The server of the demo: two pages, and an answer to each question of theirs.

It is Python's own, without Gradio. A sketch is strokes on a canvas and an answer is JSON, for which Gradio would bring
50 packages, an upload of files that had to be closed, and pages that fetch fonts from elsewhere. So nothing needs to be
installed or switched off, and the pages can forbid every address but this one (``_POLICY``).

Nothing is kept between two questions: a page sends all that its answer depends on, so that users cannot see or change
what is another's.
"""

from __future__ import annotations

import html
import ipaddress
import json
import logging
import socket
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any, NoReturn

from fewstep.demo import characters, functions
from fewstep.demo.models import Models

Answer = Callable[[Any], dict[str, Any]]

BYTES = 512 * 1024
"""The most of a question: six drawings of the most points are less."""

PATIENCE = 20.0
"""Seconds that a client may take to send a question."""

_POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'"
_HEADERS = {
    "Content-Security-Policy": f"{_POLICY}; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_PAGES = {"/": "characters.html", "/functions": "functions.html"}
_KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript"}

logger = logging.getLogger("fewstep")


class Refused(Exception):
    """A question that is not answered, and why."""

    def __init__(self, status: HTTPStatus, why: str) -> None:
        super().__init__(why)
        self.status = status


class Server(ThreadingHTTPServer):
    """Serves the demo at an address, until it is closed.

    Answers are computed one after another, in one thread: torch then has the processor to itself, and many users wait
    in turn rather than for each other.

    Args:
        models: for the pages.
        host: address to listen at; by default nobody but this machine can reach it.
        port: likewise; 0 takes a free one.

    Raises:
        OSError: for an address that there is not, or that is taken.
    """

    daemon_threads = True

    def __init__(self, models: Models, host: str = "127.0.0.1", port: int = 0) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.local, self._worker = is_local(host), ThreadPoolExecutor(1)
        super().__init__((host, port), _Handler)
        self.answers: Mapping[str, Answer] = {
            "/characters": partial(characters.answer, models.characters),
            "/functions": partial(functions.answer, models.functions, models.tasks.noise),
        }
        folder = files("fewstep.demo") / "pages"
        self.files = {f"/{file.name}": file.read_bytes() for file in folder.iterdir() if "." in file.name}
        for path, name in _PAGES.items():
            words = {"model": models.names[name.removesuffix(".html")], **vars(models.tasks)}
            text = self.files.pop(f"/{name}").decode()
            for word in ("model", "noise", "shots"):
                text = text.replace(f"{{{word}}}", html.escape(str(words[word])))
            self.files[path] = text.encode()

    @property
    def url(self) -> str:
        """Where a browser finds it."""
        host, port = str(self.server_address[0]), self.server_address[1]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}/"

    def answer(self, path: str, asked: Any) -> dict[str, Any]:
        """The answer to a question, in turn."""
        return self._worker.submit(self.answers[path], asked).result()

    def server_close(self) -> None:
        """Close it."""
        super().server_close()
        self._worker.shutdown()


def is_local(host: str) -> bool:
    """Whether an address can be reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _Handler(BaseHTTPRequestHandler):
    server: Server
    timeout = PATIENCE
    server_version, sys_version = "fewstep", ""

    def do_GET(self) -> None:
        self._safely(self._page)

    def do_POST(self) -> None:
        self._safely(self._answer)

    def log_message(self, format: str, *args: Any) -> None:
        """Who draws what is nobody's business."""

    def _safely(self, reply: Callable[[], None]) -> None:
        try:
            try:
                self._require_own()
                reply()
            except Refused as refused:
                self._tell(refused.status, {"error": str(refused)})
            except ValueError as error:
                self._tell(HTTPStatus.BAD_REQUEST, {"error": str(error)})
        except (ConnectionError, TimeoutError):  # the page has gone
            self.close_connection = True
        except Exception:
            logger.exception("the demo could not answer")
            self._tell(HTTPStatus.INTERNAL_SERVER_ERROR, {"error": "something went wrong; the console says what"})

    def _require_own(self) -> None:
        """Refuse what a page of another site asks, also one whose name was made to point here."""
        host, origin = self.headers.get("Host", ""), self.headers.get("Origin")
        name = host.rpartition(":")[0].strip("[]") or host
        if self.server.local and not is_local(name):
            self._refuse(HTTPStatus.FORBIDDEN, f"this demo is not at {host}")
        if origin is not None and origin != f"http://{host}":
            self._refuse(HTTPStatus.FORBIDDEN, "another site's page cannot ask")

    def _page(self) -> None:
        path = self.path.partition("?")[0]
        if (content := self.server.files.get(path)) is None:
            self._refuse(HTTPStatus.NOT_FOUND, "there is no such page")
        self._send(HTTPStatus.OK, f"{_KINDS[_PAGES.get(path, path).rpartition('.')[2]]}; charset=utf-8", content)

    def _answer(self) -> None:
        if self.path not in self.server.answers:
            self._refuse(HTTPStatus.NOT_FOUND, "there is nothing to ask here")
        if self.headers.get_content_type() != "application/json":
            self._refuse(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "only JSON is taken: files are no drawings")
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            self._refuse(HTTPStatus.LENGTH_REQUIRED, "its length must be said")
        if len(length) > 9 or int(length) > BYTES:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"more than {BYTES // 1024} KiB are no drawing")
        try:
            asked = json.loads(self.rfile.read(int(length)), parse_constant=_no_number)
        except (ValueError, RecursionError):
            self._refuse(HTTPStatus.BAD_REQUEST, "what was sent is no JSON")
        self._tell(HTTPStatus.OK, self.server.answer(self.path, asked))

    def _refuse(self, status: HTTPStatus, why: str) -> NoReturn:
        raise Refused(status, why)

    def _tell(self, status: HTTPStatus, words: dict[str, Any]) -> None:
        self._send(status, "application/json", json.dumps(words).encode())

    def _send(self, status: HTTPStatus, kind: str, content: bytes) -> None:
        self.send_response(status)
        for name, value in {**_HEADERS, "Content-Type": kind, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")
