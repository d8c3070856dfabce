"""What a shell completes: commands, and the options of each.

tyro makes the script of a command line that it knows as a whole. Here options depend on the recipe that comes before
them, so those of :data:`TYPICAL` stand for all: most recipes have most of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import make_dataclass
from io import StringIO
from pathlib import Path
from typing import Annotated, Any, Union

import tyro

from fewstep.commands.ablate import Ablate
from fewstep.commands.compare import Compare
from fewstep.commands.console import say
from fewstep.commands.embed import Embed
from fewstep.commands.evaluate import Evaluate
from fewstep.commands.pretrain import Pretrain, default_config
from fewstep.commands.repeat import Repeat
from fewstep.commands.search import Search
from fewstep.commands.train import Train
from fewstep.data.images.by_name import ImageData
from fewstep.recipes import RECIPES

TYPICAL = "leo-omniglot"
"""The recipe whose options are completed."""


def script(shell: str, functions: Mapping[str, Any]) -> str:
    """A shell's script.

    Args:
        shell: bash, zsh or tcsh.
        functions: what tyro makes a command of, by name; names of two words are in groups. The others are added.
    """
    recipe = RECIPES[TYPICAL]()
    typical = {
        "pretrain": Pretrain(default_config("cifar-fs", [])),
        "embed": Embed(ImageData("cifar-fs")),
        **{kind.__name__.lower(): kind(recipe) for kind in (Train, Search, Repeat, Ablate)},
    }
    commands = [Annotated[type(d), tyro.conf.subcommand(name, default=d)] for name, d in typical.items()]
    groups: dict[str, list[Any]] = {}
    for name, function in {"compare": Compare, "evaluate": Evaluate, **functions}.items():
        group, _, own = name.rpartition(" ")
        siblings = groups.setdefault(group, []) if group else commands
        siblings.append(Annotated[function, tyro.conf.subcommand(own, prefix_name=False)])
    for group, siblings in groups.items():
        kind = make_dataclass(group, [("command", Union[tuple(siblings)])])  # noqa: UP007
        commands.append(Annotated[kind, tyro.conf.subcommand(group)])
    whole: Any = Union[tuple(commands)]  # noqa: UP007
    arguments = ["--tyro-print-completion", shell]
    with redirect_stdout(StringIO()) as made, suppress(SystemExit):
        tyro.cli(whole, prog="fewstep", args=arguments, config=(tyro.conf.AvoidSubcommands,))
    # Helps of several lines would be completed line by line, and where nothing is known, bash is to complete files.
    text = re.sub(r"^COMPLETION_SPEC = .*$", lambda spec: spec[0].replace("\\n", " "), made.getvalue(), flags=re.M)
    text = text.replace('matches+=("$completion")', '[[ -z "$completion" ]] || matches+=("$completion")')
    return text.replace("complete -F ", "complete -o default -F ")


def complete(arguments: Sequence[str], functions: Mapping[str, Any]) -> None:
    """``fewstep --tyro-print-completion SHELL``, or ``fewstep --tyro-write-completion SHELL FILE``."""
    match arguments:
        case ["--tyro-print-completion", shell]:
            say(script(shell, functions))
        case ["--tyro-write-completion", shell, file]:
            Path(file).parent.mkdir(parents=True, exist_ok=True)
            Path(file).write_text(script(shell, functions), encoding="utf-8")
        case _:
            raise ValueError("give --tyro-print-completion SHELL or --tyro-write-completion SHELL FILE.")
