"""How long it takes to begin."""

import subprocess
import sys

from benchmarks.measure import Case, Contender, Work


def startup(rounds: int = 5) -> Case:
    """Fresh processes; ``import torch`` is what no program built on it can be faster than."""

    def process(*arguments: str) -> Work:
        def work() -> None:
            subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)

        return work

    return Case(
        "startup",
        "start-up of a process",
        [
            Contender("import torch", lambda: process("-c", "import torch")),
            Contender("import fewstep", lambda: process("-c", "import fewstep")),
            Contender("fewstep --help", lambda: process("-m", "fewstep", "--help")),
            Contender("train RECIPE --help", lambda: process("-m", "fewstep", "train", "leo-omniglot", "--help")),
        ],
        rounds=rounds,
        memory=False,
    )
