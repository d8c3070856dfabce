"""The command line: a table of commands, each imported when it is given."""

from __future__ import annotations

import inspect
import logging
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.metadata import version
from typing import NamedTuple

import tyro
from rich.logging import RichHandler
from rich.text import Text

from fewstep.commands.console import aside, console, say, styled, told
from fewstep.training.launched import launched
from fewstep.training.stopping import Stopped, stoppable


class Command(NamedTuple):
    """A command.

    Attributes:
        function: where it is. One of ``arguments`` reads them by itself, as its options depend on the first of them; of
            any other tyro makes a command.
        words: what it needs, for the list of commands.
        about: what it does.
    """

    function: str
    words: str
    about: str

    def load(self) -> Callable[..., None]:
        """The function."""
        module, _, name = self.function.partition(":")
        found: Callable[..., None] = getattr(import_module(module), name)
        return found


COMMANDS: Mapping[str, Command] = {
    name: Command(*row)
    for name, *row in (
        (
            "pretrain",
            "fewstep.commands.pretrain:pretrain",
            "DATASET […]",
            "train a network on images, for its features",
        ),
        ("embed", "fewstep.commands.embed:embed", "RUN DATASET […]", "features of images or texts, by a network"),
        ("train", "fewstep.commands.train:train", "RECIPE [options]", "meta-train and test; --resume RUN goes on"),
        ("evaluate", "fewstep.commands.evaluate:evaluate", "RUN [options]", "test a trained run beside baselines"),
        ("fit", "fewstep.commands.fit:fit", "FEATURES", "what classifies them best from few examples"),
        ("compare", "fewstep.commands.compare:compare", "RUN RECIPE …", "several methods on the same tasks"),
        ("search", "fewstep.commands.search:search", "RECIPE --trials N", "random search over a recipe's settings"),
        ("repeat", "fewstep.commands.repeat:repeat", "RECIPE --seeds N", "several seeds at once: mean and deviation"),
        ("ablate", "fewstep.commands.ablate:ablate", "RECIPE --trials N", "LEO taken apart, each part searched"),
        ("report", "fewstep.commands.report:report", "FOLDER …", "what a folder holds, as one HTML page"),
        ("analyse", "fewstep.commands.analyse:analyse", "RUN [--against …]", "what its adaptation does, in pictures"),
        ("uncertainty", "fewstep.commands.uncertainty:uncertainty", "RUN …", "regressions beside the exact posterior"),
        ("plot sine-line", "fewstep.commands.uncertainty:sine_line", "RUN", "functions that such a run samples"),
        ("plot oscillations", "fewstep.commands.uncertainty:oscillations", "RUN …", "forecasts, and the best possible"),
        ("predict", "fewstep.commands.predict:predict", "MODEL [options]", "for your own images, features, numbers"),
        ("demo", "fewstep.commands.demo:demo", "[RUN]", "draw in a browser, and watch LEO adapt"),
        ("export", "fewstep.commands.export:export", "RUN FILE", "a trained run as one file, with its card"),
        ("data leo-embeddings", "fewstep.commands.data:leo_embeddings", "", "fetch the published embeddings"),
        ("data convert", "fewstep.commands.data:convert", "FILE FILE", "features of one format into another"),
        ("data inspect", "fewstep.commands.data:inspect", "FILE", "what a file of features holds"),
        ("list", "fewstep.commands.recipes:list_recipes", "", "the methods and the recipes"),
        ("show", "fewstep.commands.recipes:show", "RECIPE", "a recipe, whole, and what is published"),
    )
}
"""Every command by its name; those of two words are in groups."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: run a command; a user's mistake ends in one line and status 2, a signal in that of shells."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    handler = RichHandler(console=console, show_path=False)
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[handler])
    try:
        if unreadable := [one for one in arguments if one.encode(errors="replace").decode() != one]:
            raise ValueError(f"{unreadable[0]!a} is a name whose bytes are no UTF-8: rename what is called so.")
        with stoppable(told):
            _run(*(arguments or ["--help"]))
    except KeyboardInterrupt as stop:
        aside().print(f"stopped; continue with: {shlex.join(('fewstep', *arguments))}")
        raise SystemExit(stop.status if isinstance(stop, Stopped) else 130) from None
    except (ValueError, OSError, FloatingPointError) as error:
        aside().print(Text.assemble(("error:", "red"), f" {_said(error, arguments)}"))
        raise SystemExit(2) from error


SHARED = ("pretrain", "train", "evaluate")
"""Commands whose work is shared out where torchrun begins several processes; any other would be run several times."""


def _run(command: str, *rest: str) -> None:
    if launched() and command not in SHARED:
        raise ValueError(f"torchrun is for {', '.join(SHARED)}: give fewstep {command} without it.")
    group = [name for name in COMMANDS if name.startswith(f"{command} ")]
    if command in ("-h", "--help"):
        _explain()
    elif command == "--version":
        say(f"fewstep {version('fewstep')}")
    elif command.startswith("--tyro-"):
        from fewstep.commands.completion import complete

        functions = {name: known.load() for name, known in COMMANDS.items()}
        complete([command, *rest], {name: of for name, of in functions.items() if not _reads_arguments(of)})
    elif group:
        functions = {name.removeprefix(f"{command} "): COMMANDS[name].load() for name in group}
        tyro.extras.subcommand_cli_from_dict(functions, args=rest, prog=f"fewstep {command}")
    elif command not in COMMANDS:
        names = dict.fromkeys(name.partition(" ")[0] for name in COMMANDS)
        raise ValueError(f"there is no command {command!r}; the commands are {', '.join(names)}.")
    elif _reads_arguments(function := COMMANDS[command].load()):
        function(rest)
    else:
        tyro.cli(function, args=rest, prog=f"fewstep {command}")


def _said(error: Exception, arguments: Sequence[str]) -> str:
    """What an error says, of a file first which one. What in a name moves a terminal's cursor is spelt."""
    said = str(error)
    if isinstance(error, OSError) and error.filename is not None and error.strerror is not None:
        said = f"{error.filename}: {error.strerror}"
    for name in arguments:
        said = said.replace(name, name.replace("\n", r"\n")) if "\n" in name else said
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in said)


def _reads_arguments(function: Callable[..., None]) -> bool:
    return "arguments" in inspect.signature(function).parameters


def _explain() -> None:
    styled(("fewstep", "bold"), ": learning to adapt in a few steps from a few examples\n")
    for name, command in COMMANDS.items():
        space = " " * max(1, 26 - len(f"{name} {command.words}"))
        styled("  ", (f"fewstep {name}", "bold"), f" {command.words}{space}{command.about}")
    styled("\nEach command explains itself with ", ("--help", "bold"), ".")
