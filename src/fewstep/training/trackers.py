"""Where else a run is followed: Weights & Biases, MLflow and trackio are told what ``metrics.csv`` is told."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

Tracker: TypeAlias = Callable[[int, str, Mapping[str, float]], None]
"""Told of what is logged: the meta-step, the split, and values by name."""

Service: TypeAlias = Literal["wandb", "mlflow", "trackio"]

_PROJECT = "fewstep"


@contextmanager
def tracked(services: tuple[Service, ...], folder: Path, settings: Mapping[str, Any]) -> Iterator[list[Tracker]]:
    """Follow the run of a folder in these services, which close when the run does.

    Each is configured as its users do it: by its own environment variables (``WANDB_MODE=offline``,
    ``MLFLOW_TRACKING_URI``, ``TRACKIO_DIR``) and logins. A run is named after its folder, and one that is resumed goes
    on where it was.

    Args:
        services: any of ``"wandb"``, ``"mlflow"`` and ``"trackio"``.
        folder: of the run.
        settings: to show beside it, by their names.

    Raises:
        ValueError: for a service that is unknown or not installed.
    """
    for service in services:
        if service not in get_args(Service):
            raise ValueError(f"track: {service!r} is none of {', '.join(get_args(Service))}.")
    with ExitStack() as stack:
        trackers = []
        for service in services:
            try:
                trackers.append(stack.enter_context(_OPEN[service](folder, settings)))
            except ImportError as error:
                message = f"track: {service} cannot be imported ({error}): pip install 'fewstep[{service}]'"
                raise ValueError(message) from error
        yield trackers


def _identity(folder: Path) -> str:
    """A name for a run, the same whenever it goes on in its folder."""
    where = folder.absolute()
    return f"{where.name}-{hashlib.sha256(str(where).encode()).hexdigest()[:8]}"


@contextmanager
def _wandb(folder: Path, settings: Mapping[str, Any]) -> Iterator[Tracker]:
    import wandb

    name = _identity(folder)
    with wandb.init(project=_PROJECT, id=name, name=name, dir=folder, config=dict(settings), resume="allow") as run:
        yield lambda step, split, values: run.log(_joined(split, values), step=step)


@contextmanager
def _mlflow(folder: Path, settings: Mapping[str, Any]) -> Iterator[Tracker]:
    import mlflow

    name = _identity(folder)
    experiment = mlflow.set_experiment(_PROJECT).experiment_id
    earlier = mlflow.search_runs([experiment], f"tags.`fewstep-run` = '{name}'", output_format="list")
    known = {"run_id": earlier[0].info.run_id} if earlier else {"run_name": name, "tags": {"fewstep-run": name}}
    with mlflow.start_run(experiment_id=experiment, **known):
        if not earlier:
            mlflow.log_params(dict(settings))
        yield lambda step, split, values: mlflow.log_metrics(_joined(split, values), step=step)


@contextmanager
def _trackio(folder: Path, settings: Mapping[str, Any]) -> Iterator[Tracker]:
    import trackio

    run = trackio.init(project=_PROJECT, name=_identity(folder), config=dict(settings), resume="allow", embed=False)
    try:
        yield lambda step, split, values: run.log(_joined(split, values), step=step)
    finally:
        trackio.finish()


_OPEN = {"wandb": _wandb, "mlflow": _mlflow, "trackio": _trackio}


def _joined(split: str, values: Mapping[str, float]) -> dict[str, float]:
    return {f"{split}/{name}": value for name, value in values.items()}
