"""Commands that take hours: they stop in order, say how they go on, and may leave their terminal."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from fewstep.commands import detached
from fewstep.commands.console import say, told
from fewstep.core.ranges import Threads
from fewstep.experiments.engines import EngineName
from fewstep.recipes import Config
from fewstep.training import stopping


@dataclass(frozen=True)
class OnRecipe:
    """What the commands that run one recipe many times have in common."""

    config: Annotated[Config, tyro.conf.arg(name="")]
    """The recipe."""
    workers: Threads | None = None
    """Processes at once; 1 runs searches in this one. None: as many as cores and --threads allow; one on a GPU."""
    engine: EngineName = "local"
    """Where they run: processes of this machine, or a Dask or Ray cluster. slurm-script, of a search, prints a script
    for sbatch: an array of --workers jobs (8) that share the search (docs/cluster.md)."""
    address: str | None = None
    """Of the cluster's scheduler or head. None: one of processes of this machine."""
    out: Path | None = None
    """Folder of everything; an earlier one goes on. None: a new one under searches/, repeats/ or ablations/."""
    detach: bool = False
    """Go on in the background when the terminal is gone; what would be shown goes to log.txt in the folder."""


@contextmanager
def removed_if_empty(out: Path | None, folder: Path) -> Iterator[None]:
    """A new folder, where the user named none as ``out``, goes at the end if nothing has come into it."""
    try:
        yield
    finally:
        if out is None:
            with suppress(OSError):  # what is not empty stays
                folder.rmdir()
                folder.parent.rmdir()


@contextmanager
def stoppable(*words: str) -> Iterator[None]:
    """Let SIGINT (Ctrl-C), SIGTERM (``kill PID``), SIGHUP and SIGUSR1 (Slurm) end what happens inside in order.

    The user is told the words that continue it, and the status is that of shells: 130, 143, 129 or 138.
    """
    try:
        with stopping.stoppable(told):
            yield
    except KeyboardInterrupt as stop:
        say(f"\nstopped; what has been done is kept; continue with: {shlex.join(('fewstep', *words))}")
        raise SystemExit(stop.status if isinstance(stop, stopping.Stopped) else 130) from None


class LongRunning:
    """A command that continues when it is given again.

    Args:
        command: its name.
        arguments: those that the user gave.
        out: the folder that the user named.
        parent: of a new folder, where the user named none.
        title: of the new folder.

    Attributes:
        folder: its folder, which the user is told.
        words: what continues it in that folder, for a process that takes over and for a user who goes on after a stop.
    """

    def __init__(self, command: str, arguments: Sequence[str], out: Path | None, parent: str, title: str = "") -> None:
        from fewstep.experiments.folder import new_folder

        self.out, self.folder = out, new_folder(parent, title) if out is None else out
        given = [argument for argument in arguments if argument not in ("--detach", "--no-detach")]
        self.words = [command, *given, *([] if out else ["--out", str(self.folder)])]
        say(f"folder: {self.folder}")

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Its work, which can be stopped; a new folder goes if nothing has come into it."""
        with removed_if_empty(self.out, self.folder), stoppable(*self.words):
            yield

    def detach(self) -> None:
        """Go on in a process of its own, without this terminal."""
        say(detached.detach(self.words, self.folder).advice)
