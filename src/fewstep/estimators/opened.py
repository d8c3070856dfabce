"""Models by where they are: a run, its folder, a file, or the name of one that ships with the package."""

from __future__ import annotations

import logging
from functools import lru_cache, partial
from importlib.resources import files
from pathlib import Path

from fewstep.core.modes import as_usual
from fewstep.estimators.model import Model, Origin, TrainedModel
from fewstep.estimators.sharing import Note, assembled, read
from fewstep.experiments.begun import kept_extractor, mark_of, require_as_begun, stored_problem, tell_unfinished
from fewstep.experiments.folder import CHOICES, CONFIG, ENVIRONMENT, PROBLEM, best_checkpoint, stored_config
from fewstep.experiments.model_file import SUFFIX, facts_of, tests_files
from fewstep.experiments.run import Run
from fewstep.training import load_checkpoint
from fewstep.training.checkpoint import LAST

logger = logging.getLogger("fewstep")


@as_usual
def opened(source: str | Path | Run, device: str = "auto", note: Note = logger.warning) -> Model:
    """The model of a run or a file, read once as long as it does not change.

    Args:
        source: a run, its folder, a model's file, or the name of one that ships with the package (``fewstep list``).
        device: to compute on, "cpu", "cuda" or "cuda:1"; "auto" is where it was trained, or if this machine does not
            have that, a GPU or the CPU.
        note: told, in a line, when it was trained on what is not here.

    Raises:
        ValueError: when there is no trained model there, or no such device.
    """
    path = located(source)
    files = [path]
    if path.is_dir():
        told = CONFIG, PROBLEM, ENVIRONMENT, CHOICES, LAST, *tests_files(path)
        files = [best_checkpoint(path), *(path / name for name in told)]
    return _kept(path.resolve(), tuple((file.name, *_stamp(file)) for file in files if file.exists()), device, note)


def _stamp(file: Path) -> tuple[int, ...]:
    """By which it is seen that a file is another one, also where its time was copied with it."""
    found = file.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def located(source: str | Path | Run) -> Path:
    """The folder or the file of a model.

    Raises:
        ValueError: when there is neither, and no shipped model of that name.
    """
    path = source.folder if isinstance(source, Run) else Path(source)
    if path.exists():
        return path
    if (name := str(source)) in shipped():
        return shipped()[name]
    known = ", ".join(shipped()) or "there are none"
    raise ValueError(f"{source} is no run, no file, and no model that ships with fewstep ({known}).")


def shipped() -> dict[str, Path]:
    """Models that ship with the package, by name."""
    folder = Path(str(files("fewstep.data") / "files"))
    return {path.name.removesuffix(SUFFIX): path for path in sorted(folder.glob(f"*{SUFFIX}"))}


@lru_cache(maxsize=8)
def _kept(path: Path, stamps: tuple[tuple[str | int, ...], ...], device: str, note: Note) -> Model:
    return _of_folder(path, device, note) if path.is_dir() else read(path, device, note)[0]


def _of_folder(folder: Path, device: str, note: Note) -> TrainedModel:
    config, problem, extractor = stored_config(folder), stored_problem(folder), kept_extractor(folder)
    require_as_begun(folder)
    origin = Origin(config, problem, facts_of(folder, note))
    load = partial(load_checkpoint, best_checkpoint(folder), run=mark_of(folder))
    model = assembled(origin, load, extractor, device=device, note=note)
    tell_unfinished(folder, note)
    return model
