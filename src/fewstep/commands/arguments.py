"""Command-line arguments that name a recipe and change its settings."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar

import tyro

from fewstep.commands.console import say
from fewstep.core import ranges
from fewstep.core.ranges import Count, Seed, Ways, as_given, require_again, require_ranges
from fewstep.recipes import RECIPES, Config, from_json
from fewstep.recipes.config import YAML

Command = TypeVar("Command")
Result = TypeVar("Result")
Given = ParamSpec("Given")


def checked(command: Callable[Given, Result]) -> Callable[Given, Result]:
    """The same command, which first refuses numbers that its options do not take; for functions that tyro reads."""
    return ranges.checked(command, "--")


@dataclass(frozen=True, kw_only=True)
class OfTasks:
    """Which tasks a test is of."""

    split: Literal["test", "val", "train"] = "test"
    """Classes to draw tasks from."""
    tasks: Count | None = None
    """Number of tasks (2,000); what is omitted, here and below, is as in the recipe, of several that of the first."""
    seed: Seed | None = None
    """Of the tasks (0)."""
    ways: Ways | None = None
    """N, classes in a task; any number, whatever was trained."""
    shots: Count | None = None
    """K, support examples of each class; likewise."""
    queries: Count | None = None
    """Query examples of each class (all that remain; regression: 100 points)."""
    device: str = "auto"
    """"cpu", "cuda" or "cuda:1"; auto is where a run was trained, or if this machine does not have that, a GPU or the
    CPU."""


def explained(arguments: Sequence[str], usage: str) -> bool:
    """Whether the user asks for nothing, or for help alone; then the usage is printed."""
    asks = list(arguments) in ([], ["--help"], ["-h"])
    if asks:
        say(usage)
    return asks


def chosen(command: str, make: Callable[[Config], Command], arguments: Sequence[str], example: str) -> Command | None:
    """A command on a recipe, as the user wants it; None where only its usage was asked for, which is printed."""
    usage = f"fewstep {command} RECIPE {example} [options]; fewstep {command} RECIPE --help shows every option"
    if explained(arguments, f"{usage}; fewstep list shows the recipes"):
        return None
    name, options = split_name(arguments)
    return overridden(make(named(name)), options, f"fewstep {command} {name}")


def options_of(command: Any, *without: str) -> dict[str, Any]:
    """The fields of a command's dataclass by name, but for some."""
    return {field.name: getattr(command, field.name) for field in fields(command) if field.name not in without}


def split_name(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """The recipe's name, where the arguments begin with one, and the other arguments."""
    if arguments and not arguments[0].startswith("-"):
        return arguments[0], list(arguments[1:])
    return None, list(arguments)


def named(name: str | None) -> Config:
    """A recipe by its name, or by a file: the JSON that a search writes, a run's ``config.json``, or the same in YAML.

    Raises:
        ValueError: when there is no such recipe or file, with those that may have been meant.
    """
    if name is not None and Path(name).suffix in (".json", *YAML):
        if not Path(name).is_file():
            raise ValueError(f"there is no file {name}.")
        return from_json(Path(name))
    if name is None or name not in RECIPES:
        given = "no recipe was given" if name is None else f"there is no recipe {name!r}"
        near = [known for known in RECIPES if name and known.startswith(name)]
        near = near or difflib.get_close_matches(name or "", RECIPES, n=3)
        meant = f"; did you mean {', '.join(near)}?" if near else "."
        raise ValueError(f"{given}{meant} `fewstep list` shows all of them.")
    return RECIPES[name]()


def overridden(default: Command, arguments: Sequence[str], prog: str) -> Command:
    """A command's dataclass, which holds a configuration, with the options that the user gave."""
    how = (tyro.conf.AvoidSubcommands,)
    with as_given():  # tyro would print what is refused in a box, and of an option that is not its own
        asked = tyro.cli(type(default), args=arguments, default=default, prog=prog, config=how)
    require_ranges(asked, "--")
    require_again(asked)
    return asked


def parsed(kind: type[Command], arguments: Sequence[str], prog: str) -> Command:
    """A command's dataclass with the options that the user gave."""
    asked = tyro.cli(kind, args=arguments, prog=prog)
    require_ranges(asked, "--")
    return asked


def value_of(arguments: Sequence[str], flag: str) -> str | None:
    """The value of an option, ``--flag value`` or ``--flag=value``; None where it is not given."""
    for i, argument in enumerate(arguments):
        if argument == flag and i + 1 < len(arguments):
            return arguments[i + 1]
        if argument.startswith(f"{flag}="):
            return argument.removeprefix(f"{flag}=")
    return None


def without(arguments: Sequence[str], *flags: str) -> list[str]:
    """Arguments but for some options and their values, ``--flag value`` or ``--flag=value``."""
    kept, skip = list[str](), False
    for argument in arguments:
        if not skip and argument.partition("=")[0] not in flags:
            kept.append(argument)
        skip = not skip and argument in flags
    return kept
