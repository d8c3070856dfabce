"""The log of a run: a CSV file in long format, and TensorBoard where it is installed."""

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fewstep.data.storage.files import write_atomically
from fewstep.data.storage.log import Row, log_text, read_log
from fewstep.training.trackers import Tracker


class Metrics:
    """Rows ``step, split, name, value`` in memory, written whole and atomically at every checkpoint.

    Args:
        path: of the CSV file. Rows of an earlier session are read back when it exists.
        upto: rows after this meta-step are dropped: they will be made again.
        tensorboard: also write event files into this folder, if TensorBoard can be imported.
        trackers: also told of every row as it comes.
        digest: what :meth:`digest` was at that meta-step; empty where that is not known.

    Raises:
        ValueError: when the file is damaged, or rows are missing.
    """

    def __init__(
        self, path: Path, upto: int, tensorboard: Path | None = None, trackers: Sequence[Tracker] = (), digest: str = ""
    ) -> None:
        self.path, self.trackers = path, trackers
        self.rows: list[Row] = []
        if path.exists():
            way = "restore it, or delete it: training goes on to the same bits, with a log from here on"
            self.rows = [row for row in read_log(path, way) if row[0] <= upto]
            if digest and self.digest() != digest:
                raise ValueError(
                    f"{path} is damaged: its rows up to step {upto} are not those that the checkpoint was written "
                    f"with: {way}"
                )
        elif digest:
            logging.getLogger("fewstep").warning("%s is gone: the log has no rows before step %d", path, upto)
        self._writer = _summary_writer(tensorboard, upto) if tensorboard else None

    def add(self, step: int, split: str, values: dict[str, float]) -> None:
        """Append one row per value."""
        for name, value in values.items():
            self.rows.append((step, split, name, value))
            if self._writer is not None:
                self._writer.add_scalar(f"{split}/{name}", value, step)
        for tracker in self.trackers:
            tracker(step, split, values)

    def digest(self) -> str:
        """By which these rows are known."""
        return hashlib.sha256(log_text(self.rows).encode()).hexdigest()[:16]

    def save(self) -> None:
        """Write the file."""
        write_atomically(self.path, log_text(self.rows))
        if self._writer is not None:
            self._writer.flush()


def _summary_writer(folder: Path, purge_step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    logging.getLogger("fewstep").info("writing TensorBoard events to %s", folder)
    return SummaryWriter(str(folder), purge_step=purge_step + 1)
