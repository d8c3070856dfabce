"""What a page says, before it is HTML: sections of tables, charts, facts and sentences, all of them plain text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeAlias

from fewstep.evaluation.figures import bounds, near_scores
from fewstep.evaluation.statistics import Interval, Score
from fewstep.evaluation.tables import flat, plain_text, setting_text
from fewstep.experiments.report.charts import Chart

Kind: TypeAlias = Literal["text", "number", "interval"]


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: a word, a number, or the mean of an interval.
        half: half the width of the interval, after ±; empty for none.
        value: what the column is sorted by; None comes last.
        interval: what is drawn, in the unit of ``text``; None for nothing.
        strong: of the row that matters.
        link: to a place that the cell stands for; empty for none.
    """

    text: str
    half: str = ""
    value: float | str | None = None
    interval: Interval | None = None
    strong: bool = False
    link: str = ""

    @property
    def whole(self) -> str:
        """What stands before the decimal point."""
        return self.text.partition(".")[0]

    @property
    def fraction(self) -> str:
        """The decimal point, and what follows."""
        _, point, digits = self.text.partition(".")
        return point + digits


def word(text: object, *, strong: bool = False, link: str = "") -> Cell:
    """A cell of text."""
    return Cell(str(text), value=str(text), strong=strong, link=link)


def number(value: float | int | None, form: str = ",.0f", unit: str = "") -> Cell:
    """A cell with one number; a dash for None."""
    if value is None:
        return Cell("–")
    return Cell(_signed(f"{value:{form}}{unit}"), value=float(value))


def scored(score: Score, value: float | None) -> Cell:
    """A cell with one score."""
    return Cell(score.number(value), value=None if value is None else score.scale * value)


def spread(score: Score, mean: float | None, half: float | None, *, strong: bool = False) -> Cell:
    """A cell with a mean and what follows ±, such as a standard deviation; nothing of it is drawn."""
    if mean is None:
        return Cell("not finite")
    text, _, other = score.text(Interval(mean, half or 0.0, 0)).partition(" ± ")
    return Cell(_signed(text), "n/a" if half is None else other, score.scale * mean, strong=strong)


def ranged(
    score: Score, value: Interval | Mapping[str, float] | None, *, sign: bool = False, strong: bool = False
) -> Cell:
    """A cell with an interval, as its class or as JSON has it; ``n/a`` for None.

    Args:
        score: what it is of.
        value: the interval.
        sign: also of positive means, for differences.
        strong: of the row that matters.
    """
    if value is None:
        return Cell("n/a", strong=strong)
    known = value if isinstance(value, Interval) else Interval(value["mean"], value["half_width"], 0)
    mean, _, half = score.text(known, sign=sign).partition(" ± ")
    shown = Interval(score.scale * known.mean, score.scale * known.half_width, known.tasks)
    return Cell(_signed(mean), half, shown.mean, shown, strong)


def _signed(text: str) -> str:
    return text.replace("-", "−")


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: above it.
        kind: text to the left, or numbers that stand below each other by their decimal points.
        drawn: its intervals are drawn too, on one scale; "difference": with a line at zero.
    """

    name: str
    kind: Kind = "text"
    drawn: Literal["", "score", "difference"] = ""


@dataclass(frozen=True)
class Bar:
    """An interval as it is drawn: shares of the width, in percent.

    Attributes:
        low: where it begins.
        length: of it.
        dot: its mean.
        beyond: the arrow of one that is off the scale; empty for one that is not.
    """

    low: float
    length: float
    dot: float
    beyond: str = ""


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        about: what it shows, for those who do not see where it stands.
        columns: of it; the first one names the rows.
        rows: of as many cells.
        sortable: by its columns.
    """

    kind: ClassVar[str] = "table"
    about: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    sortable: bool = True

    def fraction(self, i: int) -> int:
        """Letters that the decimal point and what follows have, at most."""
        return max((len(row[i].fraction) for row in self.rows), default=0)

    def half(self, i: int) -> int:
        """Letters of half widths, at most."""
        return max((len(row[i].half) for row in self.rows), default=0)

    def bars(self, i: int) -> tuple[list[Bar | None], float | None]:
        """The intervals of a column as they are drawn, and where zero is; None where that is not shown."""
        found = {str(at): row[i].interval for at, row in enumerate(self.rows)}
        known = {at: one for at, one in found.items() if one is not None}
        if not known:
            return [None] * len(self.rows), None
        relative = self.columns[i].drawn == "difference"
        shared = {at: one for at, one in known.items() if not relative or one.mean or one.half_width}
        shared |= {"zero": Interval(0.0, 0.0, 0)} if relative else {}
        low, high = bounds(shared[at] for at in {*near_scores(shared), *(["zero"] if relative else [])})
        margin = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
        low, high = low - margin, high + margin

        def place(value: float) -> float:
            return round(100 * min(max((value - low) / (high - low), 0.0), 1.0), 2)

        def bar(one: Interval) -> Bar:
            begin, end = place(one.mean - one.half_width), place(one.mean + one.half_width)
            beyond = "◂" if one.mean < low else "▸" if one.mean > high else ""
            return Bar(begin, round(end - begin, 2), place(one.mean), beyond)

        return [None if one is None else bar(one) for one in found.values()], place(0.0) if relative else None


@dataclass(frozen=True)
class Facts:
    """Names with what they are."""

    kind: ClassVar[str] = "facts"
    pairs: Sequence[tuple[str, str]]

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Facts:
        """A protocol."""
        return cls([(name, plain_text(value)) for name, value in values.items()])


@dataclass(frozen=True)
class Settings:
    """Many settings, folded away."""

    kind: ClassVar[str] = "settings"
    title: str
    pairs: Sequence[tuple[str, str]]

    @classmethod
    def of(cls, title: str, values: Mapping[str, Any]) -> Settings:
        """Nested settings, with dotted names."""
        return cls(title, [(name, setting_text(value)) for name, value in flat(values)])

    @classmethod
    def protocol(cls, values: Mapping[str, Any], title: str = "What the tasks were") -> Settings:
        """A test's protocol, in words."""
        return cls(title, [(name, plain_text(value)) for name, value in values.items()])


@dataclass(frozen=True)
class Text:
    """A paragraph; ``quiet`` for how something is to be read."""

    kind: ClassVar[str] = "text"
    text: str
    quiet: bool = False


@dataclass(frozen=True)
class Items:
    """A list of sentences."""

    kind: ClassVar[str] = "items"
    lines: Sequence[str]


@dataclass(frozen=True)
class Command:
    """Lines for a shell or for Python."""

    kind: ClassVar[str] = "command"
    text: str


@dataclass(frozen=True)
class Charts:
    """Charts beside each other, where there is room."""

    kind: ClassVar[str] = "charts"
    charts: Sequence[Chart]


@dataclass(frozen=True)
class Picture:
    """An image.

    Attributes:
        source: a ``data:`` URL.
        alt: what it shows.
        caption: below it; empty for none.
    """

    source: str
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class Pictures:
    """Images as wide as the page, one below the other."""

    kind: ClassVar[str] = "pictures"
    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Class:
    """A class that is hard, and the one that it is mistaken for.

    Attributes:
        name: of the class.
        pictures: of it; none where it has none.
        told: how often it is right.
        other: the class that it is most often taken for.
        other_pictures: of that.
        mistaken: how often.
    """

    name: str
    pictures: Sequence[str]
    told: str
    other: str
    other_pictures: Sequence[str]
    mistaken: str


@dataclass(frozen=True)
class Classes:
    """Classes that are hard, each beside the one that it is mistaken for."""

    kind: ClassVar[str] = "classes"
    classes: Sequence[Class]


Block: TypeAlias = Table | Facts | Settings | Text | Items | Command | Charts | Pictures | Classes


@dataclass(frozen=True)
class Section:
    """A part of a page, under a heading."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Page:
    """A report.

    Attributes:
        kind: what it is of: "Run", "Repetition".
        title: of the page.
        folder: that it is of.
        verdicts: sentences, what matters first.
        facts: the few that a reader looks for at once.
        sections: all else.
        score: what ``result`` is; None where there is no result.
        result: the number that a table of several pages has.
        sign: that is, whether it is good for the result to be large: see :class:`Score`.
    """

    kind: str
    title: str
    folder: str
    verdicts: Sequence[str]
    facts: Facts
    sections: Sequence[Section]
    score: Score | None = None
    result: Interval | None = None
    protocol: Mapping[str, Any] = field(default_factory=dict)
