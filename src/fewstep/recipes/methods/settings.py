"""What a user can choose of an algorithm, read from its source: nothing is said twice, and torch is not imported."""

from __future__ import annotations

import ast
import inspect
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple, Union, get_origin

import tyro

from fewstep import core
from fewstep.core import ranges
from fewstep.recipes.problems.problem import Problem

SOURCES = Path(__file__).parents[2] / "algorithms"
"""Where the algorithms are, a file each."""

_PLAIN = {
    **{kind.__name__: kind for kind in (bool, float, int, str, tuple)},
    "Literal": Literal,
    "Reduction": Literal["mean", "sum"],
    **{name: kind for name, kind in vars(ranges).items() if get_origin(kind) is Annotated},
}
"""Types that a command line can give, by the names that they have in signatures."""


class Argument(NamedTuple):
    """An argument of an algorithm.

    Attributes:
        kind: its type.
        default: its default; ``dataclasses.MISSING`` where it has none.
        help: what its docstring says.
    """

    kind: Any
    default: Any
    help: str


def arguments_of(algorithm: str) -> dict[str, Argument]:
    """The keyword arguments of an algorithm that a command line can give, by name and in its order.

    Of a union, such as ``float | Rule``, only the types count that can be given. Networks and losses cannot.
    """
    tree = ast.parse((SOURCES / f"{algorithm}.py").read_text(encoding="utf-8"))
    function = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == algorithm)
    helps = dict(re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", ast.get_docstring(function) or "", re.MULTILINE))
    found = {}
    for argument, default in zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True):
        kinds = list(_plain(argument.annotation))
        if any(kinds):
            value = MISSING if default is None else ast.literal_eval(default)
            found[argument.arg] = Argument(Union[tuple(kinds)], value, _plain_text(helps.get(argument.arg, "")))  # noqa: UP007
    return found


def _plain(annotation: ast.expr | None) -> Iterator[Any]:
    """The types of a union that a command line can give, None among them."""
    if isinstance(annotation, ast.BinOp):
        yield from _plain(annotation.left)
        yield from _plain(annotation.right)
    elif annotation is not None:
        try:
            yield eval(ast.unparse(annotation).removeprefix("core."), {"__builtins__": {}}, _PLAIN)
        except NameError:
            return


def _plain_text(documented: str) -> str:
    """A docstring's sentence without line breaks and markup, and with a capital letter."""
    text = re.sub(r":\w+:`~?(?:\w+\.)*(\w+)`", r"\1", " ".join(documented.split())).replace("``", "")
    return re.sub(r"^[a-z]+\b", lambda word: word[0].capitalize(), text)


def before(argument: str, default: Any = MISSING) -> Any:
    """A setting of its own that stands before an argument of the algorithm, as it does in configurations of old."""
    return field(default=default, metadata={"before": argument})


class Settings(ABC):
    """What a user can choose of an algorithm; ``build`` makes the method.

    ``class Maml(Settings, algorithm="maml", omit=("clip",))`` is a dataclass whose fields are the arguments that
    :func:`arguments_of` finds, but for those in ``omit``. Where its body or a base class has a field of that name, it
    goes before: so a setting says that it differs from its algorithm on purpose. Other fields are settings of its own.
    """

    algorithm: ClassVar[str] = ""
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    if TYPE_CHECKING:  # which does not read the sources

        def __init__(self, **settings: Any) -> None: ...

        def __getattr__(self, name: str) -> Any: ...

    def __init_subclass__(cls, algorithm: str = "", omit: Sequence[str] = ()) -> None:
        own, merged = inspect.get_annotations(cls), dict[str, Any]()
        if algorithm:
            cls.algorithm = algorithm
            inherited = getattr(cls, "__dataclass_fields__", {})
            places = {name: value.metadata.get("before") for name, value in vars(cls).items() if type(value) is Field}
            for name, argument in arguments_of(algorithm).items():
                merged |= {other: kind for other, kind in own.items() if places.get(other) == name}
                if name in own:
                    merged[name] = own[name]
                elif name not in (*omit, *inherited):
                    merged[name] = Annotated[argument.kind, tyro.conf.arg(help=argument.help)]
                    setattr(cls, name, field(default=argument.default))
        cls.__annotations__ = merged | own
        dataclass(frozen=True, kw_only=True)(cls)

    def __post_init__(self) -> None:
        ranges.require_ranges(self, "method.")

    @abstractmethod
    def build(self, problem: Problem) -> core.Method:
        """The method on a problem's inputs and outputs."""

    def compose(self, **given: Any) -> core.Method:
        """The algorithm with these settings, and with the arguments that are none: the network, the loss."""
        from fewstep import algorithms

        function = getattr(algorithms, self.algorithm)
        names = {f.name for f in fields(self)} & {*inspect.signature(function).parameters}
        return function(**{name: getattr(self, name) for name in names} | given)  # type: ignore[no-any-return]

    def at_test(self) -> dict[str, Any]:
        """What the inner loop does otherwise than in training: settings ``test_…``, where they are given."""
        given = {f.name: getattr(self, f.name) for f in fields(self) if f.name.startswith("test_")}
        return {name.removeprefix("test_"): value for name, value in given.items() if value is not None}
