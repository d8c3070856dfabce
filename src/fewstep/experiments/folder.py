"""The folder of an experiment: what is in it, whose it is, and how it is begun, found again and told from others."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any, Literal

from fewstep.core.ranges import as_given
from fewstep.data.storage.files import json_text, read_json, write_atomically
from fewstep.data.storage.lock import LOCK, LOG, alone_in, in_turn
from fewstep.recipes import Config, differences, from_json
from fewstep.training.checkpoint import BEST, LAST

CONFIG, PROBLEM, ENVIRONMENT, EXTRACTOR = "config.json", "problem.json", "environment.json", "extractor.safetensors"
CHOICES = "choices.json"
"""Files of a run besides its checkpoints. The configuration is written last: with it, a beginning is complete."""

BEGINNING = (EXTRACTOR, ENVIRONMENT, PROBLEM)
"""What a run's beginning writes before that."""


def is_run(folder: Path) -> bool:
    """Whether the folder holds a run that has been begun."""
    return (folder / CONFIG).exists()


def stored_config(folder: Path) -> Config:
    """The configuration of a run, as it was taken when it was begun: ranges may have become narrower.

    Raises:
        ValueError: when the folder is not a run.
    """
    if not is_run(folder):
        raise ValueError(
            f"{folder} was not begun to its end: nothing is lost; give the command that began it once more, with --out "
            f"{folder}."
            if is_unfinished(folder, BEGINNING)
            else f"{folder} is not a run of fewstep: it has no {CONFIG}. Give the folder that `train` printed."
        )
    with as_given():
        return from_json(folder / CONFIG)


def data_of(path: str, note: Callable[[str], None]) -> str:
    """Where data lie now that were at a place: there; or, when a folder has come from another machine, below this one.

    Args:
        path: absolute, or of a member of an archive.
        note: is told of another place, which is sought below the working directory, under the same name.
    """
    place = Path(path)
    if place.exists() or any(parent.is_file() for parent in place.parents):
        return path
    for i in range(1, len(place.parts)):
        if (here := Path(*place.parts[i:])).exists():
            note(f"{path} is not here: taking {here.absolute()}")
            return str(here.absolute())
    return path


def best_checkpoint(folder: Path) -> Path:
    """The file of a run's best meta-parameters.

    Raises:
        ValueError: when there is none yet.
    """
    best = folder / BEST
    if not best.exists():
        raise ValueError(f"{folder} has no {BEST}: training has not reached its first validation yet.")
    return best


def is_unfinished(folder: Path, beginning: Sequence[str]) -> bool:
    """Whether a folder holds nothing but what a process has left that was killed in a beginning.

    Args:
        folder: any.
        beginning: the files that such a beginning writes, the last of all apart.
    """
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    left = {name for name in names - {LOCK, LOG} if not (name.startswith(".") and name.endswith(".part"))}
    return LOCK in names and left <= set(beginning)


def require_empty(folder: Path, what: str, complete: str, beginning: Sequence[str] = ()) -> None:
    """Refuse a folder that holds anything, but for what a killed beginning has left.

    Args:
        folder: for ``what``.
        what: is to be begun there.
        complete: the file that is written last: with it, a beginning is complete.
        beginning: the files that are written before.

    Raises:
        ValueError: with how to continue ``what`` is in there.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file: give a folder to --out.")
    names = {path.name for path in folder.iterdir()} - {LOCK, LOG} if folder.exists() else set()
    if names and not is_unfinished(folder, beginning):
        raise ValueError(
            f"{folder} is not empty: continue that {what} with --resume {folder}, or choose another folder."
            if complete in names
            else f"{folder} is not empty, and holds no {what}: choose another folder."
        )


def require_same(folder: Path, what: str, stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuse to go on with ``what`` is in a folder under other settings.

    Raises:
        ValueError: with the settings that differ.
    """
    if others := differences(stored, wanted):
        raise ValueError(
            f"{folder} holds {what} with other settings ({others}): give those settings, or another folder (--out)."
        )


def new_folder(parent: str | Path, title: str = "") -> Path:
    """A folder named after a title and the time, made here and now: two processes never have the same."""
    name = f"{title}{'-' if title else ''}{datetime.now():%Y%m%d-%H%M%S}"
    for number in count(1):
        folder = Path(parent, name if number == 1 else f"{name}-{number}")
        with suppress(FileExistsError, FileNotFoundError):  # the second: its parent was empty, and has been removed
            folder.mkdir(parents=True)
            return folder
    raise AssertionError("there is always another number")


def require_new(folder: Path, what: str) -> None:
    """Refuse a folder that holds anything, for what is written there in one go and does not go on.

    Raises:
        ValueError: when something lies there, an earlier result most likely, that would be replaced.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file: give a folder to --out.")
    there = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    if kept := [name for name in there if name not in (LOCK, LOG) and not name.endswith(".part")]:
        raise ValueError(f"{folder} holds {kept[0]} already: give {what} an empty or a new folder by --out.")


def begin_again(folder: Path, what: str, complete: str, beginning: Sequence[str]) -> None:
    """See that a folder is free, without what a killed beginning has left; arguments as in :func:`require_empty`.

    Raises:
        ValueError: as :func:`require_empty`, and when another process is at that beginning.
    """
    require_empty(folder, what, complete, beginning)
    if is_unfinished(folder, beginning):
        with alone_in(folder):
            require_empty(folder, what, complete, beginning)
            clear(folder, beginning)


def clear(folder: Path, names: Sequence[str] = ()) -> None:
    """Delete what a killed process has left: half-written files, and files of these names.

    Only for who is alone in the folder: another process may be writing them.
    """
    for left_over in (*folder.glob(".*.part"), *(folder / name for name in names)):
        left_over.unlink(missing_ok=True)


@contextmanager
def all_or_nothing(folder: Path, *, among: Literal["alone", "in turn"] = "alone", work: str = "") -> Iterator[None]:
    """A beginning in a folder: when it fails before there is work to keep, the folder is as it was.

    So what was refused leaves nothing, and the corrected command runs in the same folder. A folder that held something
    before is left alone, and so is one that was interrupted, as it can go on.

    Args:
        folder: empty or new, if this is a beginning.
        among: others that come to this folder: "alone" while no other process works there, see
            :func:`~fewstep.data.storage.lock.alone_in`, or "in turn", one after another.
        work: a pattern of files that are to be kept; those of a training always are.

    Raises:
        ValueError: when the folder is a file, or another process works there.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file: give a folder to --out.")
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    locked = (folder / LOCK).exists()
    with ExitStack() as held:
        held.enter_context(alone_in(folder) if among == "alone" else in_turn(folder))
        before = {path.name for path in folder.iterdir()} - ({LOCK} if not locked else set())
        try:
            yield
        except Exception:
            kept = (f"**/{BEST}", f"**/{LAST}", *([work] if work else []))
            begun = before <= {LOG, LOCK} and not any(any(folder.glob(pattern)) for pattern in kept)
            for path in folder.iterdir() if folder.is_dir() else ():
                if path.name not in before and (begun or path.name == LOCK):
                    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            with suppress(OSError):  # what is not empty stays
                for one in missing:
                    one.rmdir()
            raise


def claim(folder: Path, name: str, mark: Mapping[str, Any], what: str) -> Mapping[str, Any]:
    """Make a folder that of an experiment, by a file that says which one.

    Args:
        folder: empty, new, or claimed before.
        name: of the file.
        mark: what it says.
        what: kind of experiment, for the message.

    Returns:
        What the file says: ``mark``, or that of an earlier claim.

    Raises:
        ValueError: when the folder is a file, or holds something else.
    """
    if kept := read_json(folder / name):
        return kept
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file: give a folder to --out.")
    # Two processes that begin at once may both come to this line.
    if folder.exists() and any(p.name not in (LOG, LOCK) and name not in p.name for p in folder.iterdir()):
        raise ValueError(f"{folder} holds something else than {what}: give an empty or a new folder to --out.")
    write_atomically(folder / name, json_text(mark))
    return mark


def fingerprint(folder: Path, *facts: Any, files: Sequence[str] = ()) -> str:
    """What an evaluation of a run depends on, in sixteen digits: facts, this version, and the bytes of its files.

    A run that is trained on changes it, and so does an edit of one of ``files``.
    """
    paths = [folder / name for name in (CONFIG, BEST, LAST, *files)]
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "" for path in paths]
    return hashlib.sha256(json.dumps([version("fewstep"), *facts, *digests]).encode()).hexdigest()[:16]
