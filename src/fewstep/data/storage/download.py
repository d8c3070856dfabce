"""Fetching a large file so that a fetch that stops can go on."""

import http.client
import logging
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import final

from fewstep.data.storage.lock import one_at_a_time

_ATTEMPTS = 3  # in a row that bring nothing
_SECONDS = 30.0  # without a byte
_CHUNK = 2**18

_log = logging.getLogger(__name__)


def fetch(url: str, target: Path, progress: Callable[[int, int | None], None] | None = None) -> Path:
    """Fetch a file whole or not at all, going on where an earlier call stopped.

    What has come lies in ``TARGET.part``, and ``TARGET.part.version`` says of which version of the file. If the server
    still has that version and can send ranges (HTTP Range and If-Range), only the rest is asked for; if not, all of it.

    Args:
        url: of the file.
        target: where it shall lie; what lies there already is taken for it.
        progress: is told the bytes that are here, and how many there are in all where the server says so.

    Returns:
        The target.

    Raises:
        ConnectionError: if it cannot be fetched whole; what has come is kept.
        PermissionError: if the folder may not be written; it is named.
        OSError: if the files cannot be written for another reason.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with one_at_a_time(target.with_name(f"{target.name}.lock"), _log.info):
            if not target.is_file():
                _Fetch(url, target.with_name(f"{target.name}.part"), progress or (lambda here, total: None)).run(target)
    except PermissionError as error:
        raise PermissionError(
            f"the folder {target.parent} may not be written ({error}): change its permissions, or give another one"
        ) from error
    return target


class _Broken(Exception):
    """Carries an error of the net, which may be a matter of luck; those of the disk are not."""


@contextmanager
def _net() -> Iterator[None]:
    """Tell errors of the net from those of the disk: both are OSErrors."""
    try:
        yield
    except (OSError, http.client.HTTPException) as error:
        raise _Broken(error) from error


@final
class _Fetch:
    """One fetch, and what is here of it."""

    def __init__(self, url: str, part: Path, progress: Callable[[int, int | None], None]) -> None:
        self.url, self.part, self.progress = url, part, progress
        self.version = part.with_name(f"{part.name}.version")

    def run(self, target: Path) -> None:
        failures = 0
        while True:
            before = self._size()
            try:
                self._go_on()
                break
            except _Broken as broken:
                (error,) = broken.args
                # An answer is an answer: only what may be a matter of luck is asked for again.
                refused = isinstance(error, urllib.error.HTTPError) and error.code < 500
                failures = 0 if self._size() > before else failures + 1
                if refused or failures == _ATTEMPTS:
                    raise ConnectionError(f"{error}; {self._size():,} bytes are kept") from error
        os.replace(self.part, target)
        self.version.unlink(missing_ok=True)

    def _size(self) -> int:
        return self.part.stat().st_size if self.part.is_file() else 0

    def _go_on(self) -> None:
        here = self._size()
        version = self.version.read_text() if self.version.is_file() else ""
        request = urllib.request.Request(self.url, headers={"Accept-Encoding": "identity"})
        if here and version:
            request.add_header("Range", f"bytes={here}-")
            request.add_header("If-Range", version)
        try:
            with _net():
                answer = urllib.request.urlopen(request, timeout=_SECONDS)
        except _Broken as broken:
            (error,) = broken.args
            if isinstance(error, urllib.error.HTTPError) and error.code == 416:  # there is nothing after what is here
                if error.headers.get("Content-Range") == f"bytes */{here}":
                    return
                self.part.unlink()
            raise
        with answer:
            sent = answer.headers.get("Content-Length")
            if answer.status != 206:
                here = 0
                tag = answer.headers.get("ETag", "")
                self.part.unlink(missing_ok=True)
                self.version.write_text(tag if tag.startswith('"') else answer.headers.get("Last-Modified", ""))
            elif not answer.headers.get("Content-Range", "").startswith(f"bytes {here}-"):
                got = answer.headers.get("Content-Range")
                raise _Broken(ConnectionError(f"{self.url}: asked for bytes {here}-, got {got}"))
            total = None if sent is None else here + int(sent)
            with self.part.open("ab") as file:
                self.progress(here, total)
                while chunk := self._read(answer):
                    file.write(chunk)
                    here += len(chunk)
                    self.progress(here, total)
        if total is not None and here != total:
            raise _Broken(ConnectionError(f"{self.url} broke off after {here:,} of {total:,} bytes"))

    def _read(self, answer: http.client.HTTPResponse) -> bytes:
        with _net():
            return answer.read(_CHUNK)
