"""Commands that go on when their terminal is gone."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fewstep.data.storage.lock import LOG


class Detached(NamedTuple):
    """A command that runs by itself.

    Attributes:
        pid: of its process.
        log: where its output goes.
    """

    pid: int
    log: Path

    @property
    def advice(self) -> str:
        """How to follow it, and how to stop it."""
        return f"process {self.pid}\nfollow it: tail -f {shlex.quote(str(self.log))}\nstop it:   kill {self.pid}"


def detach(arguments: Sequence[str], folder: Path) -> Detached:
    """Run a command of ``fewstep`` in a session of its own, which neither Ctrl-C nor a closed terminal ends.

    Its SIGTERM should be handled like Ctrl-C, for that is how users are told to stop it.

    Args:
        arguments: of ``fewstep``, without the option that asks for this.
        folder: gets ``log.txt`` with the command's output, after that of earlier ones.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log = (folder / LOG).resolve()
    with log.open("a", encoding="utf-8") as file:
        started = subprocess.Popen(
            [sys.executable, "-u", "-m", "fewstep", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Detached(started.pid, log)
