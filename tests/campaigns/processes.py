"""Commands in processes of their own, which are stopped at a moment: forked off a process that has imported all."""

from __future__ import annotations

import importlib
import itertools
import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import small

from fewstep.commands.main import COMMANDS, main
from fewstep.training import stopping

MARK = "FEWSTEP_CAMPAIGN"
"""A variable of the environment by which processes are found that have left the session of a command."""

_started = itertools.count()

PATIENCE = 300.0
"""Seconds that no command here takes."""


class Started:
    """A command at work: ``fewstep WORDS`` in a working directory, a session of its own.

    Args:
        words: the command.
        here: its working directory.
        cache: of the library.
        log: file for what it says.
        spawn: start its workers as the library does, which takes each of them seconds of imports; else fork them.
        ranks: torchrun begins so many processes of it; 0 for the command alone.
    """

    def __init__(
        self, words: Sequence[str], here: Path, cache: Path, log: Path, spawn: bool = False, ranks: int = 0
    ) -> None:
        self.words, self.log, self.began = list(words), log, time.monotonic()
        self.mark = f"{MARK}={os.getpid()}-{next(_started)}" if ranks else ""
        self.process = multiprocessing.get_context("fork").Process(
            target=_child, args=(self.words, here, cache, log, spawn, ranks, self.mark)
        )
        self.process.start()
        assert self.process.pid is not None
        self.pid = self.process.pid

    def alive(self) -> bool:
        """Whether it has not ended."""
        return self.process.is_alive()

    def sends(self, number: int, to: str = "all") -> bool:
        """Send a signal to ``all`` its processes, the ``first``, or one ``worker``; whether that was in time."""
        if not self.alive():
            return False
        others = self.others()
        try:
            if to == "all":
                os.killpg(self.pid, number)
            else:
                os.kill(self.pid if to == "first" else next(iter(others), self.pid), number)
        except ProcessLookupError:
            return False
        for pid in others if to == "all" and self.mark else ():  # in sessions of their own
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        return True

    def others(self) -> list[int]:
        """Its living processes besides the first."""
        return workers(self.pid, self.mark)

    def wait(self) -> int:
        """Its exit status, as a shell would say it less 128 for a signal: negative."""
        self.process.join(PATIENCE)
        if self.process.is_alive():
            os.killpg(self.pid, signal.SIGKILL)
            self.process.join()
            return 999
        assert self.process.exitcode is not None
        return self.process.exitcode

    def left(self, seconds: float = 10.0) -> list[str]:
        """Processes of its session that have outlived it by so long, and what they are at; they are killed."""
        until = time.monotonic() + seconds
        while (there := self.others()) and time.monotonic() < until:
            time.sleep(0.02)
        found = [_at_what(pid) for pid in there]
        for pid in there:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return found

    @property
    def said(self) -> str:
        """What it has printed."""
        return self.log.read_text(encoding="utf-8", errors="replace")


def run(words: Sequence[str], here: Path, cache: Path, log: Path, ranks: int = 0) -> tuple[int, str]:
    """A command from its beginning to its end: its status, and what it said."""
    started = Started(words, here, cache, log, ranks=ranks)
    return started.wait(), started.said


def workers(session: int, mark: str = "") -> list[int]:
    """The living processes of a session besides its first, and those that have a mark in their environment."""
    found = []
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit() or int(entry.name) == session:
            continue
        try:
            fields = Path(entry.path, "stat").read_text().rpartition(")")[2].split()
            marked = bool(mark) and mark.encode() in Path(entry.path, "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if (marked or fields[3] == str(session)) and fields[0] != "Z":
            found.append(int(entry.name))
    return sorted(found)


def _at_what(pid: int) -> str:
    """The state of a process, what it waits for in the kernel, its parent, and its words."""
    try:
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        waits = Path(f"/proc/{pid}/wchan").read_text()
        return f"{pid} of {status['PPid']}: {status['State']}, {waits}, {status['Threads']} threads: {words[:200]}"
    except OSError as gone:
        return f"{pid}: {gone}"


def load_everything(modules: Iterable[str] = ()) -> None:
    """Import what the commands do, once; and modules that they were seen to need."""
    for name in modules:
        with suppress(Exception):
            importlib.import_module(name)
    for command in COMMANDS.values():
        command.load()
    import fewstep.commands.progress
    import fewstep.estimators.files
    import fewstep.experiments.ablate.procedure
    import fewstep.experiments.compare.procedure
    import fewstep.experiments.repeat.procedure
    import fewstep.experiments.run
    import fewstep.experiments.search  # noqa: F401


def _child(words: list[str], here: Path, cache: Path, log: Path, spawn: bool, ranks: int, mark: str) -> None:
    if not spawn:
        fork = multiprocessing.get_context("fork")
        multiprocessing.get_context = lambda _=None: fork  # type: ignore[assignment]
        os.fork = _as_from_the_server(os.fork)
    os.setsid()
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
    os.environ |= {"FEWSTEP_CACHE": str(cache), "COLUMNS": "200"}
    os.chdir(here)
    sys.argv = ["fewstep", *words]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    if ranks:
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
        own = dict([mark.split("=")])
        os.execve(sys.executable, [*torchrun, "-m", "fewstep", *words], os.environ | own)
    small.prepare()
    try:
        main(words)
    finally:
        if "FEWSTEP_MODULES" in os.environ:
            names = [name for name in sys.modules if name.partition(".")[0] not in ("__main__", "__mp_main__")]
            Path(os.environ["FEWSTEP_MODULES"]).write_text(json.dumps(names))


def _as_from_the_server(fork: Callable[[], int]) -> Callable[[], int]:
    """A fork whose child takes signals as one of the library's server of workers does, which has no handlers.

    Otherwise it would have those of the command, and Python forgets, in a process that it has just forked, what has
    come to it so far.
    """

    def careful() -> int:
        with stopping.signals_later(*stopping.SIGNALS):
            if pid := fork():
                return pid
            for number in (signal.SIGTERM, signal.SIGUSR1):
                signal.signal(number, signal.SIG_DFL)
            stopping._asked = stopping._Asked()
        return 0

    return careful


Look = Callable[[], bool]
"""Whether the moment has come."""


def at(seconds: float) -> Look:
    """So long after now."""
    until = time.monotonic() + seconds
    return lambda: time.monotonic() >= until


def in_write(here: Path, number: int) -> Look:
    """While the ``number``-th half-written file that is met below a folder lies there."""
    seen: set[str] = set()

    def look() -> bool:
        for path in _parts(str(here)):
            if path not in seen:
                seen.add(path)
                if len(seen) >= number:
                    return True
        return False

    return look


def _parts(folder: str) -> list[str]:
    found, below = [], [folder]
    while below:
        try:
            with os.scandir(below.pop()) as entries:
                for entry in entries:
                    if entry.name.endswith(".part"):
                        found.append(entry.path)
                    elif entry.is_dir(follow_symlinks=False):
                        below.append(entry.path)
        except OSError:
            continue
    return found


def waits_for(started: Started, moment: Look, pause: float = 0.0005) -> bool:
    """Wait for a moment; false where the command ended before."""
    while started.alive():
        if moment():
            return True
        time.sleep(pause)
    return False
