"""What stands before Gradio: only what the pages ask is answered, and only they may ask.

Gradio's server has more than the demo needs: it takes files, serves some, fetches addresses that it is sent, and has
pages for developers. All but what is listed here is refused before it gets there.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, NoReturn

from fastapi import Request
from starlette.responses import JSONResponse, Response

BYTES = 512 * 1024
"""The most of a question: six drawings of the most points are less."""

_ASKED = "/gradio_api/queue/join"
_PATHS = {"/", "/functions", "/theme.css", "/favicon.ico", "/gradio_api/queue/data", "/gradio_api/app_id"}
_FOLDERS = ("/assets/", "/static/")
_POLICY = {
    "default-src": "'none'",
    "script-src": "'self' 'unsafe-inline' 'unsafe-eval'",  # Gradio's, whose templates are code
    "style-src": "'self' 'unsafe-inline'",
    "img-src": "'self' data:",
    "font-src": "'self' data:",
    "connect-src": "'self'",
    "base-uri": "'self'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
}
_HEADERS = {
    "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in _POLICY.items()),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class Refused(Exception):
    """A request that is not answered, and why."""

    def __init__(self, status: HTTPStatus, why: str) -> None:
        super().__init__(why)
        self.status = status


def is_local(host: str) -> bool:
    """Whether an address can be reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def guard(local: bool) -> Callable[[Request, Callable[[Request], Awaitable[Response]]], Awaitable[Response]]:
    """The guard of a server, a middleware of HTTP.

    Args:
        local: whether it listens where only this machine reaches it.
    """

    async def guarded(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
        try:
            _require_own(request, local)
            await _require_known(request)
            response = await answer(request)
        except Refused as refused:
            response = JSONResponse({"error": str(refused)}, refused.status)
        response.headers.update(_HEADERS)
        return response

    return guarded


def _require_own(request: Request, local: bool) -> None:
    """Refuse what a page of another site asks, also one whose name was made to point here."""
    host, origin = request.headers.get("host", ""), request.headers.get("origin")
    if local and not is_local((host.rpartition(":")[0] or host).strip("[]")):
        raise Refused(HTTPStatus.FORBIDDEN, f"this demo is not at {host}")
    if origin is not None and origin != f"http://{host}":
        raise Refused(HTTPStatus.FORBIDDEN, "another site's page cannot ask")


async def _require_known(request: Request) -> None:
    """Refuse everything but the pages, their parts, and questions that hold no file."""
    path = request.url.path
    if request.method in ("GET", "HEAD") and (path in _PATHS or path.startswith(_FOLDERS)):
        return
    if request.method != "POST" or path != _ASKED:
        raise Refused(HTTPStatus.NOT_FOUND, "there is nothing here")
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "only JSON is taken: files are no drawings")
    length = request.headers.get("content-length", "")
    if not (length.isascii() and length.isdigit()) or "transfer-encoding" in request.headers:
        raise Refused(HTTPStatus.LENGTH_REQUIRED, "its length must be said")
    if len(length) > 9 or int(length) > BYTES:
        raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"more than {BYTES // 1024} KiB are no drawing")
    try:
        json.loads(await request.body(), object_hook=_no_file, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise Refused(HTTPStatus.BAD_REQUEST, f"what was sent is no question: {error}") from error


def _no_file(given: dict[str, Any]) -> dict[str, Any]:
    """An object that Gradio does not take for a file, which it would fetch."""
    if "path" in given or "url" in given:
        raise ValueError("it names a file")
    return given


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")
