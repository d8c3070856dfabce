"""An analysis of trained runs: its numbers with their intervals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from jaxtyping import Float, Int
from rich.table import Table

from fewstep.evaluation.analysis import Spectrum, StepLengths
from fewstep.evaluation.analysis.hessian import Place, Space
from fewstep.evaluation.statistics import Interval, interval, paired
from fewstep.evaluation.tables import markdown_lines, protocol_lines, terminal_table

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Of a box: its whiskers, its ends and the line in it."""

SYMBOLS: Mapping[str, str] = {"codes": "z", "weights": "θ", "induced": "θ, by steps of z"}


@final
@dataclass(frozen=True, eq=False)
class CodeMap:
    """Codes of many tasks before and after adaptation, and their places on two maps, made of both together.

    Attributes:
        before: z.
        after: z'.
        classes: of each code; None where codes have none.
        names: of the classes, by their number.
        separation: silhouettes of each task's codes, before and after; None without classes.
        components: places by the first two principal components, before and after.
        shares: of the variance along these.
        tsne: places by t-SNE, likewise.
    """

    before: Float[np.ndarray, "tasks codes numbers"]
    after: Float[np.ndarray, "tasks codes numbers"]
    classes: Int[np.ndarray, "tasks codes"] | None
    names: Sequence[str]
    separation: tuple[Float[np.ndarray, " tasks"], Float[np.ndarray, " tasks"]] | None
    components: Float[np.ndarray, "2 points 2"]
    shares: Float[np.ndarray, 2]
    tsne: Float[np.ndarray, "2 points 2"]


@final
@dataclass(frozen=True, eq=False)
class Analysed:
    """One run on the test tasks.

    Attributes:
        label: its name.
        spectra: of each task, by space and place, see :func:`~fewstep.evaluation.analysis.curvature`.
        singular: values of the decoder's Jacobian; None without a decoder. Of a linear one, those of one task are those
            of all.
        lengths: of its steps.
    """

    label: str
    spectra: Mapping[tuple[Space, Place], list[Spectrum]]
    singular: Float[np.ndarray, "tasks values"] | None
    lengths: StepLengths

    def places(self) -> Iterator[Place]:
        """Those at which there are codes and weights."""
        return (place for space, place in self.spectra if space == "codes")


@final
@dataclass(frozen=True, eq=False)
class Analysis:
    """A run's codes, and curvature and reach of it and others on the same tasks.

    Attributes:
        codes: of the run; None when it has no codes.
        runs: the run, and those that it is put beside.
        training: curvature at meta-steps of the run's training, on some of the tasks; empty where none were asked for.
        protocol: what a result must state.
    """

    codes: CodeMap | None
    runs: list[Analysed]
    training: Mapping[int, Mapping[tuple[Space, Place], list[Spectrum]]]
    protocol: dict[str, Any]

    def boxes(self) -> list[dict[str, Any]]:
        """What box plots show: for each box the quantiles 5, 25, 50, 75 and 95% and the number of values.

        Eigenvalues and steps of all tasks are pooled; ``largest eigenvalue`` has one value a task.
        """
        found = []
        for run in self.runs:
            for (space, place), spectra in run.spectra.items():
                values = np.concatenate([np.abs(one.values) for one in spectra])
                found.append(_box("eigenvalues", run.label, space, place, values))
                found.append(_box("largest eigenvalue", run.label, space, place, [one.largest for one in spectra]))
            if run.singular is not None:
                found.append(_box("singular values", run.label, "decoder", "start", run.singular))
            for name, steps in run.lengths.steps.items():
                found.append(_box("step", run.label, name, "", steps))
            for name, distances in run.lengths.distances.items():
                found.append(_box("distance", run.label, name, "", distances))
        return found

    def numbers(self) -> dict[str, Interval]:
        """Means over tasks with their 95% intervals; orders of magnitude are log₁₀ of ratios, task by task."""
        found: dict[str, Interval] = {}
        if self.codes is not None and self.codes.separation is not None:
            before, after = self.codes.separation
            found |= {"silhouette of z": interval(before), "silhouette of z'": interval(after)}
            found["silhouette, z' − z, paired"] = paired(after, before)
        for run in self.runs:
            for place in run.places():
                of = f"orders of magnitude, z over θ, {run.label}, {place}"
                codes, weights = run.spectra["codes", place], run.spectra["weights", place]
                for name in ("largest", "typical"):
                    found[f"{of}: {name} |λ|"] = _orders(codes, weights, name)
            steps = {name: np.log10(values.mean(1)) for name, values in run.lengths.steps.items()}
            if "codes" in steps:
                found[f"orders of magnitude, induced step over step of z, {run.label}"] = paired(
                    steps["induced"], steps["codes"]
                )
        first, *others = self.runs
        for run in others:
            for what, mine, theirs in (
                ("step", first.lengths.steps, run.lengths.steps),
                ("distance", first.lengths.distances, run.lengths.distances),
            ):
                if "induced" in mine and "weights" in theirs:
                    own, other = (np.log10(v.reshape(len(v), -1).mean(1)) for v in (mine["induced"], theirs["weights"]))
                    title = f"orders of magnitude, {what} in θ, induced of {first.label} over {run.label}"
                    found[title] = paired(own, other)
        return found

    def table(self) -> Table:
        """For a terminal."""
        return terminal_table(f"{self.protocol['tasks']} tasks", self._cells(), "fr")

    def _cells(self) -> list[tuple[str, str]]:
        numbers = [(name, value.text(decimals=3)) for name, value in self.numbers().items()]
        return [("", "mean ± 95% interval"), *numbers]

    def along_training(self) -> list[dict[str, Any]]:
        """For each meta-step and place, medians of the largest |λ| and the mean of the ratios with its interval."""
        rows = []
        for step, spectra in self.training.items():
            for place in dict.fromkeys(place for _, place in spectra):
                codes, weights = spectra["codes", place], spectra["weights", place]
                largest = {s: float(np.median([o.largest for o in of])) for s, of in (("z", codes), ("θ", weights))}
                found = {name: _orders(codes, weights, name) for name in ("largest", "typical")}
                row = {"meta-step": step, "place": place, "largest, z": largest["z"], "largest, θ": largest["θ"]}
                for name, value in found.items():
                    row |= {f"orders, {name}": value.mean, f"orders, {name}, half width": value.half_width}
                rows.append(row)
        return rows

    def task_rows(self) -> list[list[Any]]:
        """The numbers of each task, below their names."""
        columns: dict[str, Sequence[float]] = {}
        for run in self.runs:
            for (space, place), spectra in run.spectra.items():
                for name in ("largest", "typical", "trace", "rank"):
                    columns[f"{run.label}: {name}, {space}, {place}"] = [getattr(one, name) for one in spectra]
            for what, of in (("step", run.lengths.steps), ("distance", run.lengths.distances)):
                for name, values in of.items():
                    columns[f"{run.label}: {what}, {name}"] = values.reshape(len(values), -1).mean(1).tolist()
        if self.codes is not None and self.codes.separation is not None:
            for when, found in zip(("before", "after"), self.codes.separation, strict=True):
                columns[f"silhouette {when} (validation task)"] = found.tolist()
        return [["task", *columns], *([task, *row] for task, row in enumerate(zip(*columns.values(), strict=True)))]

    def markdown(self) -> str:
        """The whole result as a page."""
        rank = [
            f"{run.label}, {space}, {place}: rank {_counts([one.rank for one in spectra])} of {spectra[0].size}"
            + ("" if all(one.complete for one in spectra) else " (the largest ones: there are more)")
            for run in self.runs
            for (space, place), spectra in run.spectra.items()
        ]
        boxes = [
            [box["quantity"], box["run"], box["space"], box["place"], *(f"{box[_percent(q)]:.3g}" for q in QUANTILES)]
            for box in self.boxes()
        ]
        blocks = [
            "# What adaptation does",
            "![codes](codes.png)" if self.codes is not None else "",
            "![curvature and reach](curvature.png)",
            "\n".join(markdown_lines(self._cells())),
            "Largest: max |λ| of a task. Typical: the geometric mean of the |λ| of a task that are not zero, as many "
            "by z as by θ. Intervals are of the choice of test tasks; another training seed is not covered by them.",
            "Eigenvalues that are zero are left out: " + "; ".join(rank) + ".",
            "\n".join(markdown_lines([("", "run", "of", "at", *map(_percent, QUANTILES)), *boxes])),
            "\n".join(protocol_lines(self.protocol)),
        ]
        return "\n\n".join(block for block in blocks if block) + "\n"


def _orders(codes: Sequence[Spectrum], weights: Sequence[Spectrum], name: str) -> Interval:
    """log₁₀ of a ratio: of the largest |λ| of a task, or of geometric means, of as many eigenvalues by z as by θ.

    There are more by θ than by z where the loss is of many rows, and the smallest ones would decide. Tasks with a loss
    so flat that there are none do not have it.
    """
    found = []
    for pair in zip(codes, weights, strict=True):
        count = min(one.rank for one in pair)
        if count:
            count = 1 if name == "largest" else count
            logs = [np.log10(np.abs(one.values[:count])).mean() for one in pair]
            found.append(logs[0] - logs[1])
    return interval(np.array(found))


def _box(quantity: str, run: str, space: str, place: str, values: Any) -> dict[str, Any]:
    flat = np.ravel(values)
    named = zip(map(_percent, QUANTILES), np.quantile(flat, QUANTILES).tolist(), strict=True)
    return {"quantity": quantity, "run": run, "space": space, "place": place, "values": flat.size, **dict(named)}


def _percent(quantile: float) -> str:
    return f"{quantile:.0%}"


def _counts(ranks: Sequence[int]) -> str:
    low, high = min(ranks), max(ranks)
    return f"{low}" if low == high else f"{low} to {high}"
