"""What a run was begun with: settings, data and extractor, and that they are still the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fewstep.data.storage.files import read_json
from fewstep.data.storage.tensors import digest_of
from fewstep.evaluation.tables import flat
from fewstep.experiments.folder import CONFIG, EXTRACTOR, PROBLEM
from fewstep.training.checkpoint import BEST, LAST, last_state, require_own, told_state
from fewstep.training.pretraining import FeatureExtractor

DATA = "data"
"""Fingerprints of the splits, in what is kept of a problem."""

CENTRE = "centre"
"""The mean input of the meta-training classes of a run on features, there."""

ELSEWHERE = ("device", "threads", "data.path", "images.name", "images.path", "images.split", "images.cache")
"""Settings that may change: where a run computes, and where its data lie, which are known by their fingerprints."""


def mark_of(folder: Path, *names: str) -> str:
    """A word for what a folder was begun with, which its checkpoints carry: of its settings and its data.

    Args:
        folder: of the run.
        names: of the files that say what it was begun with; those of a run when omitted.

    Raises:
        ValueError: when one of them is damaged.
    """
    settings, *facts = (read_json(folder / name) for name in names or (CONFIG, PROBLEM))
    kept = {name: value for name, value in flat(settings) if name not in ELSEWHERE}
    return hashlib.sha256(json.dumps([kept, *facts], sort_keys=True).encode()).hexdigest()[:32]


def require_as_begun(folder: Path) -> None:
    """Refuse a run whose settings or data are not those that its checkpoints were made with.

    Raises:
        ValueError: naming the checkpoint, or what is damaged.
    """
    stored_problem(folder)
    require_own(folder, mark_of(folder))


def stored_problem(folder: Path) -> dict[str, Any]:
    """What a run keeps of its problem: ``inputs``, ``outputs``, ``regression``, ``normalise``, ``features``.

    Of features also their mean over the meta-training classes, ``centre``, since version 0.2.

    Raises:
        ValueError: when the file is gone or damaged.
    """
    kept, kinds = read_json(folder / PROBLEM), {"inputs": list, "outputs": int, "regression": bool, "normalise": bool}
    if wrong := [name for name, kind in (kinds | {"features": bool}).items() if not isinstance(kept.get(name), kind)]:
        raise ValueError(f"{folder / PROBLEM} is gone or damaged (it has no {wrong[0]}): restore it, or train anew.")
    return kept


def kept_extractor(folder: Path) -> FeatureExtractor | None:
    """The network that made the features of a run; None where it was trained on something else.

    Raises:
        ValueError: when its file is gone, damaged, or that of another network.
    """
    kept, path = stored_problem(folder), folder / EXTRACTOR
    if not kept["features"]:
        return None
    if not path.exists():
        raise ValueError(f"{path} is gone, the network that made this run's features: restore it, or train anew.")
    extractor = FeatureExtractor.load(path)
    if kept.get("extractor", digest_of(path)) != digest_of(path):
        raise ValueError(f"{path} is another network than this run's features are of: restore it, or train anew.")
    return extractor


def unfinished(folder: Path) -> str:
    """What there is to say of a training that goes on, or was stopped, and is used as far as it has come."""
    if (state := last_state(folder)) is None or state.finished:
        return ""
    known = "" if (folder / LAST).exists() else f", as far as is known ({LAST} is gone)"
    step = (told_state(folder / BEST) or state).best_step  # it is written first, and may be the newer one
    return f"has not finished training{known}: it is used as it was best so far, at step {step}"


def tell_unfinished(folder: Path, note: Callable[[str], None]) -> None:
    """Say so of a folder, where there is something to say."""
    if said := unfinished(folder):
        note(f"{folder} {said}")


def require_same_data(folder: Path, kept: Mapping[str, Any], now: Mapping[str, str], where: str) -> None:
    """Refuse data that have changed since a folder was begun.

    Args:
        folder: of the run.
        kept: fingerprints by split, as they were; of runs before they were kept, empty.
        now: as they are.
        where: the data are.

    Raises:
        ValueError: naming the splits.
    """
    if changed := [split for split in now if split in kept and kept[split] != now[split]]:
        told = ", ".join(f"{split} (was {kept[split]:.8}, is {now[split]:.8})" for split in changed)
        raise ValueError(
            f"the data of {folder} have changed since it was begun: {told}, of {where}. Restore them, or begin anew in "
            "another folder: results on other data are not this run's."
        )
