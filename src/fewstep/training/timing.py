"""Where the time of a command goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import final

_watch: ContextVar[Watch | None] = ContextVar("watch", default=None)


@final
class Watch:
    """Seconds by what they went into. What is done within something else counts for itself alone.

    Attributes:
        seconds: so far, in the order in which things were first done.

    Example:
        >>> with watched("the rest") as watch:
        ...     with timed("training"), timed("validation"):
        ...         pass
        >>> list(watch.seconds)
        ['the rest', 'training', 'validation']
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._now: list[str] = []
        self._since = time.perf_counter()

    def _turn(self) -> None:
        """Count what has passed for what was done."""
        now = time.perf_counter()
        if self._now:
            self.seconds[self._now[-1]] += now - self._since
        self._since = now

    def begin(self, what: str) -> None:
        """Something begins, within what is being done."""
        self._turn()
        self._now.append(what)
        self.seconds.setdefault(what, 0.0)

    def end(self) -> None:
        """What began last has ended."""
        self._turn()
        self._now.pop()

    def __str__(self) -> str:
        """All of it and its parts, the largest first; what is below a hundredth is left out."""
        total = sum(self.seconds.values())
        parts = sorted(self.seconds.items(), key=lambda part: -part[1])
        shown = [f"{what} {seconds:.0f} s ({seconds / total:.0%})" for what, seconds in parts if seconds >= total / 100]
        return f"{total:.0f} s: {', '.join(shown)}"


@contextmanager
def watched(rest: str) -> Iterator[Watch]:
    """Watch where the time of a block goes, in this thread.

    Args:
        rest: the name of what is not timed by itself.
    """
    watch = Watch()
    token = _watch.set(watch)
    watch.begin(rest)
    try:
        yield watch
    finally:
        watch.end()
        _watch.reset(token)


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Count the seconds of a block, or of a function that it decorates, where somebody watches."""
    watch = _watch.get()
    if watch is None:
        yield
        return
    watch.begin(what)
    try:
        yield
    finally:
        watch.end()
