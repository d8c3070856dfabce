"""A script for Slurm: a search as an array of jobs that share a study."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path


def array_script(words: Sequence[str], folder: Path, storage: str | None, jobs: int, threads: int) -> str:
    """What ``sbatch`` takes: the same command in every job of the array, which join one search.

    Slurm asks with SIGUSR1 for the end two minutes before it takes a machine away; a job that is queued again goes on.

    Args:
        words: of the command, without what this script decides about.
        folder: of the search, which all machines see.
        storage: of its study; a journal in the folder when omitted.
        jobs: how many at once.
        threads: CPU threads of each.

    Example:
        >>> from pathlib import Path
        >>> print(array_script(["search", "leo-features-1shot"], Path("/home/me/s"), None, 8, 1).splitlines()[2])
        #SBATCH --array=1-8
    """
    folder = folder.resolve()
    shared = storage or f"journal:///{folder / 'study.journal'}"
    ours = ["--out", str(folder), "--storage", shared, "--workers", "1", "--threads", str(threads)]
    return f"""#!/bin/bash
#SBATCH --job-name=fewstep-search
#SBATCH --array=1-{jobs}
#SBATCH --cpus-per-task={threads}
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
# Add what your cluster wants: --partition, --account, --time, --mem, --gpus-per-task.

cd {shlex.quote(str(Path.cwd()))} || exit
exec {shlex.join(["fewstep", *words, *ours])}
"""
