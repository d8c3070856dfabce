"""Stopping in order: a signal asks for it, and a training ends where nothing is half done, with a checkpoint."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name))
"""Ctrl-C, ``kill``, a terminal that goes, and what Slurm can be told to send before it takes a job's machine away."""

ECHO = 1.0
"""Seconds within which the same signal counts as one: a terminal and a launcher may both send it."""


class Stopped(KeyboardInterrupt):
    """A signal has asked for the end, and this is it.

    Attributes:
        signal: which one.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = signal.Signals(number)

    @property
    def status(self) -> int:
        """The exit status by which shells know a process that a signal has ended."""
        return 128 + self.signal


@dataclass
class _Asked:
    """What this process has been asked, as signals are the process's and not a trainer's.

    Attributes:
        number: of the first signal.
        at: when it came.
        process: that it came to.
        patient: how many of :func:`patiently` the main thread is in.
        handled: whether a :func:`stoppable` is at work.
        lost: it was raised where Python lets no exception out, in a callback of the garbage collector or the like.
    """

    number: int | None = None
    at: float = 0.0
    process: int = 0
    patient: int = 0
    handled: bool = False
    lost: bool = False


_asked = _Asked()


def _forget() -> None:
    """A process that was forked is in the middle of nothing, and has been asked nothing but what came since."""
    _asked.patient = 0
    if _asked.process != os.getpid():
        _asked.number, _asked.lost = None, False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


@contextmanager
def stoppable(told: Callable[[str], None] = lambda _: None) -> Iterator[None]:
    """Any of :data:`SIGNALS` ends what happens inside in order; another one ends the process at once.

    A training stops after the meta-step that it is at, or between two batches of its validation, and leaves a
    checkpoint from which it goes on to the same bits. Anything else stops where it is. Signals that were ignored still
    are. Without this, and in any thread but the main one, nothing is changed about signals.

    Args:
        told: is called, inside the handler, with the name of the first signal.

    Raises:
        Stopped: which is a KeyboardInterrupt.

    Example:
        >>> with stoppable():  # doctest: +SKIP
        ...     run.train()
    """
    if _asked.handled or threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, _: FrameType | None) -> None:
        if _asked.number is None or _asked.lost:
            if not _asked.lost:
                told(signal.Signals(number).name)
            _asked.number, _asked.at, _asked.process, _asked.lost = number, time.monotonic(), os.getpid(), False
            if not _asked.patient:
                raise Stopped(number)
        elif number != _asked.number or time.monotonic() - _asked.at > ECHO:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def again(number: int) -> None:
        if _asked.handled and _asked.lost:
            os.kill(os.getpid(), number)

    def unraisable(found: Any) -> None:
        if isinstance(found.exc_value, Stopped):
            _asked.lost = True
            threading.Timer(0.05, again, (found.exc_value.signal,)).start()  # when that callback is over
        else:
            hook(found)

    hook = sys.unraisablehook
    before: dict[int, Any] = {number: signal.getsignal(number) for number in SIGNALS}
    mine = [number for number, handler in before.items() if handler not in (signal.SIG_IGN, None)]
    _asked.handled = True
    try:
        for number in mine:
            signal.signal(number, handle)
        sys.unraisablehook = unraisable
        yield
    finally:
        sys.unraisablehook = hook
        for number in mine:
            signal.signal(number, before[number])
        _asked.handled, _asked.number, _asked.lost = False, None, False


@contextmanager
def patiently() -> Iterator[None]:
    """Inside, a signal waits for the next :func:`poll`; one that has come is minded at the end of the outermost one."""
    inside = threading.current_thread() is threading.main_thread()
    _asked.patient += inside
    try:
        yield
    finally:
        _asked.patient -= inside
    if inside and not _asked.patient:
        poll()


def asked() -> int:
    """The signal that has asked for the end; 0 where none has."""
    return _asked.number or 0


def poll() -> None:
    """End here if a signal has asked for it: a place where nothing is half done.

    Raises:
        Stopped: if so.
    """
    if _asked.number is not None:
        raise Stopped(_asked.number)


@contextmanager
def signals_later(*numbers: int) -> Iterator[None]:
    """Signals wait, and a process that starts meanwhile does not see them until it lets them in."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def let_signals_in() -> None:
    """Mind the signals of :data:`SIGNALS` from here on, those that have waited first; see :func:`signals_later`."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
