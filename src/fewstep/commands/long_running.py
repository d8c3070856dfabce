"""Commands that take hours: they stop in order, say how they go on, and may leave their terminal."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated

import tyro

from fewstep.commands import detached
from fewstep.commands.console import say
from fewstep.core.ranges import Threads
from fewstep.recipes import Config


@dataclass(frozen=True)
class OnRecipe:
    """What the commands that run one recipe many times have in common."""

    config: Annotated[Config, tyro.conf.arg(name="")]
    """The recipe."""
    workers: Threads | None = None
    """Processes at once; 1 runs searches in this one. None: as many as cores and --threads allow; one on a GPU."""
    out: Path | None = None
    """Folder of everything; an earlier one goes on. None: a new one under searches/, repeats/ or ablations/."""
    detach: bool = False
    """Go on in the background when the terminal is gone; what would be shown goes to log.txt in the folder."""


def new_folder(parent: str, title: str = "") -> Path:
    """A folder named after a title and the time."""
    return Path(parent) / f"{title}{'-' if title else ''}{datetime.now():%Y%m%d-%H%M%S}"


@contextmanager
def stoppable(*words: str) -> Iterator[None]:
    """Let Ctrl-C and ``kill PID`` end what happens inside in order, with the words that continue it and status 130."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        say(f"\nstopped; what has been done is kept; continue with: {shlex.join(('fewstep', *words))}")
        raise SystemExit(130) from None
    finally:
        signal.signal(signal.SIGTERM, before)


class LongRunning:
    """A command that continues when it is given again.

    Args:
        command: its name.
        arguments: those that the user gave.
        out: the folder that the user named.
        default: the folder where the user named none.

    Attributes:
        folder: its folder, which the user is told.
        words: what continues it in that folder, for a process that takes over and for a user who goes on after a stop.
    """

    def __init__(self, command: str, arguments: Sequence[str], out: Path | None, default: Path) -> None:
        self.folder = out or default
        given = [argument for argument in arguments if argument not in ("--detach", "--no-detach")]
        self.words = [command, *given, *([] if out else ["--out", str(default)])]
        say(f"folder: {self.folder}")

    def detach(self) -> None:
        """Go on in a process of its own, without this terminal."""
        say(detached.detach(self.words, self.folder).advice)
