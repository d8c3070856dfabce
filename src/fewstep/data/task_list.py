"""A fixed list of tasks that can be saved, so that other software can be judged on the same tasks."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
import torch

from fewstep.core.types import Task
from fewstep.data.checks import check_count
from fewstep.data.dataset import Dataset
from fewstep.data.episodes import EpisodeSampler, TaskIndices, assemble, deferred
from fewstep.data.source import Deferred, OnDevice
from fewstep.data.storage.cache import npz
from fewstep.data.storage.files import write_atomically
from fewstep.data.storage.reading import reading

_FORMAT = 1
_INDEX = ("classes", "support", "query", "query_weight")


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class TaskList(OnDevice):
    """Tasks that are written down: a finite :class:`~fewstep.data.TaskSource`.

    The file is an ``.npz`` without pickles: ``classes``, ``support``, ``query`` and ``query_weight`` as in
    :class:`TaskIndices`, and the dataset's ``feature_shape``, ``offsets`` and ``class_names``, by which a load finds
    out whether it was given the dataset that the tasks were drawn from. Positions count the rows in class order.

    Attributes:
        dataset: where the examples come from.
        index: which examples make up each task.
        tasks: tasks in a batch; the last batch may be smaller.
        dtype: floating-point type of the tensors.
        device: where the tensors lie.

    Raises:
        ValueError: if ``tasks`` is not positive, or the indices do not fit the dataset or one another.
    """

    dataset: Dataset
    index: TaskIndices
    tasks: int

    def __post_init__(self) -> None:
        check_count("tasks", self.tasks)
        index = self.index
        for name in ("support", "query", "query_weight"):
            shape = getattr(index, name).shape
            if len(shape) != 3 or shape[:2] != index.classes.shape:
                raise ValueError(f"{name} must be [tasks, ways, rows] = {(*index.classes.shape, 'rows')}, got {shape}")
        rows = len(self.dataset)
        for name, bound in (("classes", self.dataset.classes), ("support", rows), ("query", rows)):
            values = getattr(index, name)
            if values.size and (values.min() < 0 or values.max() >= bound):
                raise ValueError(
                    f"{name} must be from 0 to {bound - 1} in {self.dataset}, got {values.min()} to {values.max()}"
                )

    @classmethod
    def draw(cls, sampler: EpisodeSampler, batches: int, start: int = 0) -> "TaskList":
        """Write down the tasks of some steps of a sampler, beginning with step ``start``."""
        check_count("batches", batches)
        drawn = [sampler.indices(step) for step in range(start, start + batches)]
        index = TaskIndices(*(np.concatenate([getattr(part, name) for part in drawn]) for name in _INDEX))
        return cls(
            dataset=sampler.dataset, index=index, tasks=sampler.tasks, dtype=sampler.dtype, device=sampler.device
        )

    @property
    def ways(self) -> int:
        """Classes in a task."""
        return int(self.index.classes.shape[1])

    def __len__(self) -> int:
        """Number of batches."""
        return -(-len(self.index) // self.tasks)

    def __iter__(self) -> Iterator[Task]:
        return (self.batch(step) for step in range(len(self)))

    def indices(self, step: int) -> TaskIndices:
        """Which examples make up the tasks of batch ``step``.

        Raises:
            IndexError: if there is no such batch.
        """
        if not 0 <= step < len(self):
            raise IndexError(f"this list holds {len(self)} batches of {self.tasks} tasks; there is no batch {step}")
        return self.index.part(slice(step * self.tasks, (step + 1) * self.tasks))

    def batch(self, step: int, slice_: slice | None = None) -> Task:
        """The tasks of batch ``step``, or a slice of them; layout as :func:`~fewstep.data.assemble` says.

        Raises:
            IndexError: if there is no such batch.
        """
        return assemble(self.dataset, self.indices(step).part(slice_), dtype=self.dtype, device=self.device)

    def deferred(self, step: int) -> Deferred:
        """The tasks of batch ``step``, their queries unfetched: see :class:`~fewstep.data.Deferring`.

        Raises:
            IndexError: if there is no such batch.
        """
        return deferred(self.dataset, self.indices(step), dtype=self.dtype, device=self.device)

    def save(self, path: str | Path) -> None:
        """Write the list to ``path`` (an ``.npz`` file), whole or not at all.

        Raises:
            OSError: if the file cannot be written.
        """
        arrays = {
            "format": np.array(_FORMAT),
            **{name: getattr(self.index, name) for name in _INDEX},
            "tasks": np.array(self.tasks),
            "dataset": np.array(str(self.dataset)),
            **_fingerprint(self.dataset),
        }
        write_atomically(path, npz(arrays, compressed=True))

    @classmethod
    def load(
        cls,
        path: str | Path,
        dataset: Dataset,
        *,
        tasks: int | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> "TaskList":
        """Read a list that :meth:`save` wrote.

        Args:
            path: the file.
            dataset: the dataset that the tasks were drawn from.
            tasks: tasks in a batch; as saved when omitted.
            dtype: floating-point type of the tensors.
            device: where the tensors lie.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is damaged or no task list, or if the dataset is another one.
        """
        with reading(path, "is no task list", "save it again"):
            with np.load(path, allow_pickle=False) as file:
                saved = {name: file[name] for name in file.files}
            index = TaskIndices(*(saved[name] for name in _INDEX))
            source, version, saved_tasks = str(saved["dataset"]), int(saved["format"]), int(saved["tasks"])
            fingerprint = {name: saved[name] for name in _fingerprint(dataset)}
        if version != _FORMAT:
            raise ValueError(f"{path} has format {version}, this version of fewstep reads format {_FORMAT}")
        for name, here in _fingerprint(dataset).items():
            if not np.array_equal(there := fingerprint[name], here):
                raise ValueError(
                    f"{path} was drawn from {source}, which has other {name} than {dataset}: "
                    f"{_brief(there)} there, {_brief(here)} here. Load the dataset that it was drawn from"
                )
        return cls(
            dataset=dataset, index=index, tasks=saved_tasks if tasks is None else tasks, dtype=dtype, device=device
        )


def _fingerprint(dataset: Dataset) -> dict[str, np.ndarray]:
    """What must agree for positions to mean the same examples."""
    return {
        "feature_shape": np.array(dataset.feature_shape, np.int64),
        "offsets": dataset.offsets,
        "class_names": np.array(dataset.class_names, str),
    }


def _brief(values: np.ndarray) -> str:
    return f"{values.tolist()}" if values.size <= 4 else f"{len(values)} values beginning {values[:3].tolist()}"
