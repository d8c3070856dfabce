"""The log of a run: a CSV file in long format, and TensorBoard where it is installed."""

import csv
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fewstep.data.storage.files import csv_text, write_atomically
from fewstep.training.trackers import Tracker

COLUMNS = ("step", "split", "name", "value")


class Metrics:
    """Rows ``step, split, name, value`` in memory, written whole and atomically at every checkpoint.

    Args:
        path: of the CSV file. Rows of an earlier session are read back when it exists.
        upto: rows after this meta-step are dropped: they will be made again.
        tensorboard: also write event files into this folder, if TensorBoard can be imported.
        trackers: also told of every row as it comes.
    """

    def __init__(
        self, path: Path, upto: int, tensorboard: Path | None = None, trackers: Sequence[Tracker] = ()
    ) -> None:
        self.path, self.trackers = path, trackers
        self.rows: list[tuple[int, str, str, float]] = []
        if path.exists():
            with path.open(newline="") as file:
                rows = ((int(r["step"]), r["split"], r["name"], float(r["value"])) for r in csv.DictReader(file))
                self.rows = [row for row in rows if row[0] <= upto]
        self._writer = _summary_writer(tensorboard, upto) if tensorboard else None

    def add(self, step: int, split: str, values: dict[str, float]) -> None:
        """Append one row per value."""
        for name, value in values.items():
            self.rows.append((step, split, name, value))
            if self._writer is not None:
                self._writer.add_scalar(f"{split}/{name}", value, step)
        for tracker in self.trackers:
            tracker(step, split, values)

    def save(self) -> None:
        """Write the file."""
        write_atomically(self.path, csv_text([COLUMNS, *self.rows]))
        if self._writer is not None:
            self._writer.flush()


def _summary_writer(folder: Path, purge_step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    logging.getLogger("fewstep").info("writing TensorBoard events to %s", folder)
    return SummaryWriter(str(folder), purge_step=purge_step + 1)
