"""A configuration with a name."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from fewstep.recipes.config import Config
from fewstep.recipes.published import Published
from fewstep.recipes.space import Range


@dataclass(frozen=True)
class Recipe:
    """A named configuration; calling it makes one.

    Attributes:
        name: as users give it.
        make: returns the configuration; its docstring describes it.
        arguments: of ``make``.
        family: stands for all recipes that differ in their arguments alone, as a shell's braces do:
            "maml-cifarfs-5way-{1,5}shot"; the name where there is no other.
        published: what its paper, or another, reports for it.
        space: what ``fewstep search`` draws; empty where no search is foreseen.
    """

    name: str
    make: Callable[..., Config]
    arguments: tuple[Any, ...] = ()
    family: str = ""
    published: tuple[Published, ...] = ()
    space: tuple[Range, ...] = ()

    def __call__(self) -> Config:
        """The configuration."""
        return replace(self.make(*self.arguments), recipe=self.name)

    @property
    def about(self) -> str:
        """What it is, in its first line and what may follow."""
        return inspect.getdoc(self.make) or ""
