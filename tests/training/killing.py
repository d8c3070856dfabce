"""A process that dies at the worst moment."""

import os
import signal

from fewstep.data.storage import files


def kill_in_write(number: int) -> None:
    """Die by SIGKILL between writing the temporary file of the ``number``-th checkpoint and renaming it."""
    rename, seen = os.replace, 0

    def replace(source: object, target: object) -> None:
        nonlocal seen
        if str(target).endswith(".safetensors"):
            seen += 1
            if seen == number:
                os.truncate(str(source), os.path.getsize(str(source)) // 2)
                os.kill(os.getpid(), signal.SIGKILL)
        rename(source, target)  # type: ignore[arg-type]

    files.os.replace = replace  # type: ignore[assignment]
