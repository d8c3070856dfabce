"""Where many runs are computed: processes of this machine, or the workers of a Dask or a Ray cluster.

On a cluster every job has a process of its own too, a child of the worker that it was given to: it computes the same
bits as here, on a thread of its own, and stops in order when that worker is killed. The job is then given to another
worker, where its run goes on from its checkpoint. All machines see the same folders.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any, Literal, Protocol, runtime_checkable

from fewstep.experiments.workers import LOOKING, Job, Tell, count_workers, run_all

EngineName = Literal["local", "dask", "ray", "slurm-script"]
"""The last prints a script instead, of ``fewstep search`` alone."""

DEATHS = 3
"""How many workers of a Ray cluster may die of a job; of Dask's its own setting, which is the same, says so."""


@runtime_checkable
class Engine(Protocol):
    """Runs jobs, so many at once, and returns their results in the order of the jobs.

    Attributes:
        shared: whether they may run on other machines; what they say on the way stays there then, and how far they are
            is seen from their folders.
    """

    shared: bool

    def count(self, workers: int | None, threads: int, device: str) -> int:
        """How many jobs are to run at once: as asked, or as many as there is room for."""

    def run(
        self,
        jobs: Sequence[Job],
        *,
        workers: int,
        threads: int = 1,
        on_message: Callable[[int, Any], None] = lambda *_: None,
        look: Callable[[], None] | None = None,
    ) -> list[Any]:
        """As :func:`~fewstep.experiments.workers.run_all` does, with its errors."""


@dataclass(frozen=True)
class Local:
    """Processes of this machine."""

    shared = False
    run = staticmethod(run_all)
    count = staticmethod(count_workers)


@dataclass(frozen=True)
class Dask:
    """The workers of a Dask cluster, each with one job for each of its threads.

    Attributes:
        address: of its scheduler; a cluster of processes of this machine, for as long as jobs run, when omitted.
    """

    address: str | None = None
    shared = True

    def count(self, workers: int | None, threads: int, device: str) -> int:
        """How many jobs are to run at once."""
        if workers is not None or self.address is None:
            return count_workers(workers, threads, device)
        from distributed import Client

        with Client(self.address, set_as_default=False) as client:
            cores: dict[str, int] = client.ncores()
            return max(1, sum(cores.values()))

    def run(
        self,
        jobs: Sequence[Job],
        *,
        workers: int,
        threads: int = 1,
        on_message: Callable[[int, Any], None] = lambda *_: None,
        look: Callable[[], None] | None = None,
    ) -> list[Any]:
        """Run jobs by joblib's backend of this name."""
        from distributed import Client, LocalCluster

        if self.address is not None:
            with Client(self.address, set_as_default=False) as client:
                return _by_joblib("dask", {"client": client}, jobs, workers, threads, look)
        size = max(2, min(workers, len(jobs)))  # of one worker joblib would make none, and compute in this process
        with (
            LocalCluster(
                n_workers=size, threads_per_worker=1, dashboard_address=None, silence_logs=logging.ERROR
            ) as cluster,
            Client(cluster, set_as_default=False) as client,
        ):
            return _by_joblib("dask", {"client": client}, jobs, workers, threads, look)


@dataclass(frozen=True)
class Ray:
    """The workers of a Ray cluster.

    Attributes:
        address: of its head; a cluster of processes of this machine, for as long as jobs run, when omitted.
    """

    address: str | None = None
    shared = True

    def count(self, workers: int | None, threads: int, device: str) -> int:
        """How many jobs are to run at once."""
        if workers is not None or self.address is None:
            return count_workers(workers, threads, device)
        import ray

        with self._connected():
            return max(1, int(ray.cluster_resources()["CPU"]) // threads)

    def run(
        self,
        jobs: Sequence[Job],
        *,
        workers: int,
        threads: int = 1,
        on_message: Callable[[int, Any], None] = lambda *_: None,
        look: Callable[[], None] | None = None,
    ) -> list[Any]:
        """Run jobs by joblib's backend of this name."""
        from ray.util.joblib import register_ray

        register_ray()
        again = {"max_restarts": DEATHS, "max_task_retries": DEATHS, "num_cpus": threads}
        with self._connected(max(2, workers) * threads):
            return _by_joblib("ray", {"ray_remote_args": again}, jobs, workers, threads, look)

    @contextmanager
    def _connected(self, cores: int | None = None) -> Iterator[None]:
        import ray

        options = {"address": self.address} if self.address else {"num_cpus": cores, "include_dashboard": False}
        ray.init(log_to_driver=False, logging_level="error", **options)
        try:
            yield
        finally:
            ray.shutdown()


def engine_of(name: EngineName, address: str | None = None) -> Engine:
    """An engine by its name.

    Raises:
        ValueError: when it is not installed, or has no address.
    """
    if name == "local":
        if address is not None:
            raise ValueError(f"--address {address} is of a cluster: give --engine dask or ray too.")
        return Local()
    if name == "slurm-script":
        raise ValueError("--engine slurm-script is of fewstep search: give local, dask or ray.")
    if find_spec({"dask": "distributed", "ray": "ray"}[name]) is None:
        raise ValueError(f"--engine {name} is not installed: pip install 'fewstep[{name}]'.")
    return Dask(address) if name == "dask" else Ray(address)


def _by_joblib(
    backend: str,
    options: dict[str, Any],
    jobs: Sequence[Job],
    workers: int,
    threads: int,
    look: Callable[[], None] | None,
) -> list[Any]:
    from joblib import Parallel, delayed, parallel_config

    here = [replace(job, function=_in_folder, arguments=(os.getcwd(), job.function, job.arguments)) for job in jobs]
    with _looking(look), parallel_config(backend=backend, **options):
        # What is dispatched at once is what runs at once; of one joblib would make none, and compute in this process.
        pool = Parallel(n_jobs=max(2, workers), pre_dispatch=workers, batch_size=1)
        found: list[Any] = pool(delayed(_placed)(job, threads) for job in here)
    errors = [one for one in found if isinstance(one, Exception)]
    if any(isinstance(error, RuntimeError) for error in errors):
        raise RuntimeError("\n".join(map(str, errors)))
    if errors:
        raise ValueError("; ".join(map(str, errors)))
    return found


@contextmanager
def _looking(look: Callable[[], None] | None) -> Iterator[None]:
    """Have a thread look while this one waits."""
    over = threading.Event()

    def often() -> None:
        while look and not over.wait(LOOKING):
            look()

    thread = threading.Thread(target=often, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _placed(job: Job, threads: int) -> Any:
    """In a worker of a cluster: do a job in a process of its own; its result, or the error that says how it failed."""
    multiprocessing.current_process().daemon = False  # it may have children: they end with it by themselves
    try:
        return run_all([job], workers=1, threads=threads, look=_unless_cancelled)[0]
    except (ValueError, RuntimeError) as error:
        return error


def _unless_cancelled() -> None:
    """End the job of a Dask worker that nobody waits for any more, whose thread Dask lets run on."""
    if "distributed" not in sys.modules:
        return
    from distributed import get_worker

    try:
        worker = get_worker()
        task = worker.state.tasks.get(worker.get_current_task())
    except ValueError:  # this is none
        return
    if task is None or task.state == "cancelled":
        raise KeyboardInterrupt


def _in_folder(folder: str, function: Callable[..., Any], arguments: tuple[Any, ...], tell: Tell) -> Any:
    os.chdir(folder)
    return function(*arguments, tell)
