"""Worker processes: several jobs at once, each in a process that ends with this one."""

from __future__ import annotations

import logging
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

from fewstep.training.stopping import Stopped, patiently, poll, signals_later, stoppable

logger = logging.getLogger("fewstep")

Tell = Callable[[Any], None]
"""Sends a message from a job to the process that waits for it."""

STOPPING = 120.0
"""Seconds that processes have to end in order; a training ends after the meta-step that it is at."""

LOOKING = 0.2
"""Seconds between two looks at how far jobs are."""

USERS_MISTAKES = (ValueError, OSError, FloatingPointError)
"""Errors whose message says all that a user needs; of others the traceback is kept."""


@dataclass(frozen=True)
class Job:
    """One call of a function, ``function(*arguments, tell)``.

    Attributes:
        name: for messages.
        function: of the top level of a module, so that another process can import it.
        arguments: can be pickled, as can what the function returns and sends.
        retries: how often it is begun again after its process was killed by a signal, as when memory ran out.
    """

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...] = ()
    retries: int = 0


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Throttle:
    """Says when it is time for something that is to happen every so many seconds at most."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.last = seconds, -math.inf

    def __call__(self) -> bool:
        """Whether it is time; if so, the next time is so many seconds later."""
        now = time.monotonic()
        due = now - self.last >= self.seconds
        self.last = now if due else self.last
        return due


def count_workers(workers: int | None, threads: int = 1, device: str = "cpu") -> int:
    """How many processes work at once: as asked, or as many as cores and threads allow, and one on an accelerator.

    Raises:
        ValueError: for numbers that are not positive.
    """
    for name, number in (("workers", workers), ("threads", threads)):
        if number is not None and number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}.")
    if workers is not None:
        return workers
    return max(1, cores() // threads) if device == "cpu" else 1


class _Surroundings(NamedTuple):
    """Of the process that starts another one, at that moment: the server's are those of the first start."""

    environment: dict[str, str]
    folder: str

    @classmethod
    def here(cls) -> _Surroundings:
        """Of this process."""
        return cls(dict(os.environ), os.getcwd())

    def take_over(self) -> None:
        """In the new process."""
        os.environ.clear()
        os.environ.update(self.environment)
        os.chdir(self.folder)


def process_of(function: Callable[..., None], *arguments: Any, name: str | None = None) -> BaseProcess:
    """A process that will run ``function(*arguments)``, not started yet.

    On Linux it is forked from a server, a process of its own without threads that has imported torch and what the first
    job needs, which takes seconds of a core, once. Elsewhere, where such a fork is not safe, it is spawned. Forking
    this process itself would lose the threads that torch has here.
    """
    arguments = _Surroundings.here(), function, *arguments
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn").Process(target=_begin, args=arguments, name=name)
    context = multiprocessing.get_context("forkserver")
    # A search's worker needs Optuna too.
    own = {one.function.__module__ for one in arguments if isinstance(one, Job)}
    wanted = sorted(name for name in own if name.startswith(f"{__package__}."))
    context.set_forkserver_preload(["fewstep.experiments.run", "torch._dynamo", *wanted])
    return context.Process(target=_begin, args=arguments, name=name)


def _begin(surroundings: _Surroundings, function: Callable[..., None], *arguments: Any) -> None:
    surroundings.take_over()
    function(*arguments)


def run_all(
    jobs: Sequence[Job],
    *,
    workers: int,
    threads: int = 1,
    on_message: Callable[[int, Any], None] = lambda *_: None,
    look: Callable[[], None] | None = None,
) -> list[Any]:
    """Run jobs, at most ``workers`` of them at once, and return their results in the order of the jobs.

    A script that calls this needs the usual ``if __name__ == "__main__":``, as processes import it. They end when this
    process ends, however it ends. Warnings that a job logs are logged here, with its name.

    Args:
        jobs: what to do.
        workers: processes at once.
        threads: torch's CPU threads in each.
        on_message: called with the index of a job and each message that it sends, in this process.
        look: called here about five times a second while jobs run.

    Raises:
        ValueError: when ``workers`` or ``threads`` is not positive, or when jobs failed with an error that explains
            itself or their process died; all others have been done then, and the message names each that failed.
        RuntimeError: when a job failed otherwise; with its traceback.
        KeyboardInterrupt: when interrupted; the processes have been ended then, trainings with a checkpoint.
    """
    count_workers(workers, threads)
    waiting, running = list(enumerate(jobs)), dict[Connection, tuple[int, BaseProcess]]()
    results: list[Any] = [None] * len(jobs)
    retries = [job.retries for job in jobs]
    failures: dict[int, tuple[bool, str]] = {}

    def start() -> None:
        i, job = waiting.pop(0)
        ours, theirs = multiprocessing.Pipe(duplex=False)
        process = process_of(_work, job, threads, theirs, name=job.name)
        running[ours] = i, process  # before it starts, so that an interrupt finds it
        # It never sees Ctrl-C: its parent decides about it. A signal in the middle would lose sight of the process.
        with signals_later(signal.SIGINT), patiently():
            try:
                process.start()
            except (EOFError, OSError):
                poll()  # a signal for all processes has ended the server as well
                raise
        theirs.close()  # so that the end of the process is the end of the pipe

    def end(connection: Connection) -> None:
        _, process = running.pop(connection)
        connection.close()
        if process.pid is not None:
            process.join()

    def receive(connection: Connection) -> None:
        i, process = running[connection]
        try:
            kind, content = connection.recv()
        except (EOFError, OSError):
            process.join()
            if (process.exitcode or 0) < 0 and retries[i] > 0:
                retries[i] -= 1
                waiting.insert(0, (i, jobs[i]))
                return end(connection)
            short = "; was memory short?" if process.exitcode == -9 else ""
            failures[i] = True, f"its process died with exit code {process.exitcode}{short}"
            return end(connection)
        if kind == "message":
            on_message(i, content)
        elif kind == "log":
            logger.log(content[0], "%s: %s", jobs[i].name, content[1])
        else:
            if kind == "done":
                results[i] = content
            else:
                failures[i] = content
            end(connection)

    try:
        while waiting or running:
            while waiting and len(running) < workers:
                start()
            for ready in wait(list(running), LOOKING if look else None):
                assert isinstance(ready, Connection)
                receive(ready)
            if look:
                look()
    finally:  # nothing is left, but after an interrupt or an error of what is called
        end_in_order([process for _, process in running.values()])
        for connection in list(running):
            end(connection)
    if failures:
        explained, whose = all(explained for explained, _ in failures.values()), dict[str, list[str]]()
        for i, (_, what) in sorted(failures.items()):
            whose.setdefault(what, []).append(jobs[i].name)
        told = [f"{', '.join(names)}: {what}" for what, names in whose.items()]
        raise ValueError("; ".join(told)) if explained else RuntimeError("\n".join(told))
    return results


def end_in_order(processes: Sequence[BaseProcess]) -> None:
    """Ask processes to end, and wait until they have; those that do not are killed after :data:`STOPPING` seconds."""
    begun = [process for process in processes if process.pid is not None]
    for process in begun:
        process.terminate()
    deadline = time.monotonic() + STOPPING
    for process in begun:
        process.join(max(0.0, deadline - time.monotonic()))
        if process.is_alive():
            process.kill()
            process.join()


class _Forward(logging.Handler):
    """Sends warnings to the parent, whose terminal it is."""

    def __init__(self, send: Callable[[str, Any], None]) -> None:
        super().__init__(logging.WARNING)
        self.send = send

    def emit(self, record: logging.LogRecord) -> None:
        self.send("log", (record.levelno, record.getMessage()))


def _work(job: Job, threads: int, connection: Connection) -> None:
    """What a process does, until it is done or asked to end; then its status is that of the signal."""
    for name in ("SIGINT", "SIGHUP"):  # which a terminal sends to all; the parent decides
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    try:
        with stoppable():
            _work_alone(job, threads, connection)
    except Stopped as stop:
        sys.exit(stop.status)


def _work_alone(job: Job, threads: int, connection: Connection) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import torch

    torch.set_num_threads(threads)
    lock = threading.Lock()

    def send(kind: str, content: Any) -> None:
        # A message of another thread must not come in between; of a parent that is gone _end_with_parent takes care.
        with lock, suppress(BrokenPipeError):
            connection.send((kind, content))

    logger.addHandler(_Forward(send))
    logger.propagate = False
    try:
        result = job.function(*job.arguments, lambda message: send("message", message))
        send("done", result)
    except USERS_MISTAKES as error:
        send("failed", (True, str(error)))
    except Exception:
        send("failed", (False, traceback.format_exc()))


def _end_with_parent() -> None:
    """Nobody would read what a process without a parent finds out: it ends in order, as if asked to by a signal."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(STOPPING)
        os._exit(1)
