"""A method's part of a comparison, kept in a file so that it need not be found out twice."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import final

import numpy as np

from fewstep.evaluation.comparison import Compared
from fewstep.files import write_atomically


@final
@dataclass(frozen=True)
class Judged:
    """What was found out about one method, and about the baselines on its inputs.

    Attributes:
        method: its row.
        baselines: those of classifiers without meta-learning on the same inputs.
        score_name: what all scores are.
        higher_is_better: their direction.
    """

    method: Compared
    baselines: tuple[Compared, ...]
    score_name: str
    higher_is_better: bool

    def write(self, path: Path) -> None:
        """As JSON, whole or not at all; numbers read back to the same bits.

        Raises:
            OSError: if the file cannot be written.
        """
        content = asdict(self)
        for row in (content["method"], *content["baselines"]):
            for name in ("scores", "unadapted"):
                row[name] = None if row[name] is None else row[name].tolist()  # floats read back to the same bits
        write_atomically(path, json.dumps(content, ensure_ascii=False))

    @classmethod
    def read(cls, path: Path) -> Judged | None:
        """None where there is nothing."""
        if not path.exists():
            return None
        content = json.loads(path.read_text(encoding="utf-8"))
        for row in (content["method"], *content["baselines"]):
            for name in ("scores", "unadapted"):
                row[name] = None if row[name] is None else np.array(row[name])
            for name in ("inner_steps", "notes", "published"):
                row[name] = tuple(row[name])
        rows = tuple(Compared(**row) for row in content["baselines"])
        return cls(Compared(**content["method"]), rows, content["score_name"], content["higher_is_better"])
