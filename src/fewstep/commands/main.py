"""The command line: a thin face over recipes and runs."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Callable, Sequence

import tyro
from rich.console import Console
from rich.logging import RichHandler

from fewstep.commands.compare import compare
from fewstep.commands.console import console
from fewstep.commands.evaluate import evaluate
from fewstep.commands.predict import predict
from fewstep.commands.recipes import list_recipes, show
from fewstep.commands.train import train

USAGE = """\
[bold]fewstep[/]: learning to adapt in a few steps from a few examples

  [bold]fewstep pretrain[/] DATASET \\[…]      train a network on images, for its features
  [bold]fewstep embed[/] RUN DATASET \\[…]     features of images, by such a network
  [bold]fewstep train[/] RECIPE \\[options]    meta-train and test; --resume RUN goes on
  [bold]fewstep evaluate[/] RUN \\[options]    test a trained run beside baselines
  [bold]fewstep compare[/] RUN RECIPE …      several methods on the same tasks
  [bold]fewstep search[/] RECIPE --trials N  random search over a recipe's settings
  [bold]fewstep repeat[/] RECIPE --seeds N   several seeds at once: mean and deviation
  [bold]fewstep ablate[/] RECIPE --trials N  LEO taken apart, each part searched
  [bold]fewstep uncertainty[/] RUN …         regressions beside the exact posterior
  [bold]fewstep plot[/] sine-line RUN        functions that such a run samples
  [bold]fewstep plot[/] oscillations RUN …   forecasts of runs, and the best possible
  [bold]fewstep predict[/] RUN \\[options]     for your own images, features, numbers
  [bold]fewstep data[/] COMMAND              fetch, convert and inspect embeddings
  [bold]fewstep list[/]                      the methods and the recipes
  [bold]fewstep show[/] RECIPE               a recipe, whole, and what is published

Each command explains itself with [bold]--help[/].
"""


_OF_ARGUMENTS = {
    "pretrain": "fewstep.commands.pretrain:pretrain",
    "embed": "fewstep.commands.embed:embed",
    "search": "fewstep.commands.search:search",
    "repeat": "fewstep.commands.repeat:repeat",
    "ablate": "fewstep.commands.ablate:ablate",
}
"""Commands whose options depend on their first argument, as those of train do; each is imported when it is given."""

_GROUPS = {"data": "fewstep.commands.data:COMMANDS", "plot": "fewstep.commands.uncertainty:PLOTS"}
"""Commands of commands."""

_FUNCTIONS: dict[str, Callable[..., None]] = {
    "evaluate": evaluate,
    "compare": compare,
    "predict": predict,
    "list": list_recipes,
    "show": show,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: run a command; a user's mistake ends in one line and status 2."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    logging.basicConfig(
        level=logging.INFO, format="%(message)s", handlers=[RichHandler(console=console, show_path=False)]
    )
    if not arguments or arguments[0] in ("-h", "--help"):
        console.print(USAGE, highlight=False)
        return
    command, *rest = arguments
    try:
        if command == "train" and rest[:1] in ([], ["--help"], ["-h"]):
            console.print(
                "fewstep train RECIPE [options]; fewstep train RECIPE --help shows every option", highlight=False
            )
            list_recipes()
        elif command == "train":
            train(rest)
        elif command in _OF_ARGUMENTS:
            module, _, function = _OF_ARGUMENTS[command].partition(":")
            getattr(importlib.import_module(module), function)(rest)
        elif command in _GROUPS:
            module, _, commands = _GROUPS[command].partition(":")
            known = getattr(importlib.import_module(module), commands)
            tyro.extras.subcommand_cli_from_dict(known, args=rest, prog=f"fewstep {command}")
        elif command == "uncertainty":
            from fewstep.commands.uncertainty import uncertainty

            tyro.cli(uncertainty, args=rest, prog="fewstep uncertainty")
        elif command in _FUNCTIONS:
            tyro.cli(_FUNCTIONS[command], args=rest, prog=f"fewstep {command}")
        else:
            raise ValueError(
                f"there is no command {command!r}; the commands are train, "
                f"{', '.join([*_OF_ARGUMENTS, *_GROUPS, 'uncertainty', *_FUNCTIONS])}."
            )
    except (ValueError, OSError, FloatingPointError) as error:
        Console(stderr=True).print(f"[red]error:[/] {error}", highlight=False, markup=True, soft_wrap=True)
        raise SystemExit(2) from error
