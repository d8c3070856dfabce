"""What a fit found, at every number of shots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.table import Table

from fewstep.data import embeddings, mean_input
from fewstep.data.storage.files import read_json
from fewstep.evaluation.simple import Simple
from fewstep.evaluation.statistics import Interval, Score, finite_interval, paired, plain_interval
from fewstep.evaluation.tables import terminal_table
from fewstep.experiments.fit.conclude import best_trial, read_scores
from fewstep.experiments.fit.methods import SIMPLE, TRAINED, SimpleSettings, settings_text
from fewstep.experiments.fit.plan import Plan
from fewstep.experiments.fit.verdict import decided, gain_of_training, pays
from fewstep.experiments.fit.worker import TRIAL

ACCURACY = Score("accuracy")


@dataclass(frozen=True)
class Row:
    """One method at some shots.

    Attributes:
        name: of the method.
        settings: that validation chose, in words.
        validation: accuracy on the validation tasks of the choice; None where it was not scored.
        test: accuracy on test tasks.
        gain: over the simple method that is best in the test, paired; None for itself.
        trials: how many settings were tried.
        error: why there is no score, or why a trial has none; empty otherwise.
    """

    name: str
    settings: str
    validation: Interval | None
    test: Interval | None
    gain: Interval | None
    trials: int
    error: str


@dataclass(frozen=True)
class Cell:
    """Some shots.

    Attributes:
        shots: K.
        ways: N.
        rows: the simplest method first.
        chosen: by validation.
        recommended: that, unless the test clearly says otherwise of it and ``trained`` or ``rival``.
        trained: the trained method that is best by validation; None where none was trained.
        rival: the simple method that is best in the test.
        gain: of ``trained`` over ``rival`` in the test, paired.
        winner: settings of a simple classifier, or the run folder, of what is recommended.
        validation_tasks: on which it was chosen.
        test_tasks: on which it was tested.
    """

    shots: int
    ways: int
    rows: tuple[Row, ...]
    chosen: str
    recommended: str
    trained: str | None
    rival: str | None
    gain: Interval | None
    winner: SimpleSettings | Path
    validation_tasks: int
    test_tasks: int

    def row(self, name: str) -> Row:
        """That of a method."""
        return next(row for row in self.rows if row.name == name)

    @property
    def pays(self) -> bool:
        """Whether meta-learning pays: the interval of ``gain`` lies above zero."""
        return self.gain is not None and pays(self.gain)

    def verdict(self) -> str:
        """What to use, and whether meta-learning pays here, in a sentence each."""
        score = ACCURACY.text(self.row(self.recommended).test)
        at = f"At {self.shots} {'shot' if self.shots == 1 else 'shots'}"
        text = f"{at}, use {self.recommended}: {score}% on new classes."
        if self.gain is None or self.trained is None:
            return f"{text} Whether meta-learning pays was not found out: no method was trained in the time."
        size = ACCURACY.text(replace(self.gain, mean=abs(self.gain.mean)))
        where = "above" if self.gain.mean >= 0 else "below"
        points = f"{size} points {where} the best simple method ({self.rival})"
        text += f" Meta-learning {'pays' if self.pays else 'does not pay'} here: {self.trained} scored {points}"
        zero = abs(self.gain.mean) <= self.gain.half_width
        text += f", which is no clear difference on {self.test_tasks:,} tasks." if zero else "."
        if self.recommended != self.chosen:
            text += f" (Validation had chosen {self.chosen}, and the test is clear.)"
        elif not self.pays and self.recommended in TRAINED:
            text += f" (On validation classes {self.recommended} was ahead.)"
        return text


@dataclass(frozen=True)
class FitResult:
    """The result of a fit.

    Attributes:
        folder: with everything.
        cells: by shots.
        protocol: what the tasks were and how it was chosen.
        remarks: on the data.
        trials: every training and what became of it, for the report.
    """

    folder: Path
    cells: Mapping[int, Cell]
    protocol: Mapping[str, Any]
    remarks: Sequence[str]
    trials: Sequence[Mapping[str, Any]]

    def winner(self, shots: int) -> Simple | Path:
        """What is recommended: a classifier that needs no training, or the folder of a trained run."""
        found = self.cells[shots].winner
        if isinstance(found, Path):
            return found
        return found.make(mean_input(embeddings(self.folder / "features.safetensors", "train")))

    def facts(self, shots: int) -> dict[str, Any]:
        """What a file of the winner says of it, in JSON's types."""
        cell = self.cells[shots]
        return {
            "method": cell.recommended,
            "settings": cell.row(cell.recommended).settings,
            "shots": shots,
            "ways": cell.ways,
            "protocol": dict(self.protocol),
            "test": {"tasks": cell.test_tasks, "accuracy": plain_interval(cell.row(cell.recommended).test)},
            "verdict": cell.verdict(),
        }

    def verdicts(self) -> list[str]:
        """A sentence or two for every number of shots."""
        return [cell.verdict() for cell in self.cells.values()]

    def lines(self, shots: Sequence[int], bold: bool = False) -> list[list[str]]:
        """All methods as rows of a table with these shots, below its head."""
        head = ["", *(title for k in shots for title in (f"{k}-shot, %", "gain"))]
        names = [row.name for row in next(iter(self.cells.values())).rows]
        lines = [head]
        for name in names:
            mark = "**" if bold else ""
            cells = []
            for cell in (self.cells[k] for k in shots):
                row, best = cell.row(name), name == cell.recommended
                if row.test is None:
                    cells += ["failed" if row.error.startswith("failed") else "not tried", ""]
                    continue
                text = ACCURACY.text(row.test)
                text = (f"{mark}{text}{mark}" if bold else f"*{text}") if best else text
                cells += [text, "" if row.gain is None else ACCURACY.text(row.gain, sign=True)]
            lines.append([name, *cells])
        return lines

    def tables(self) -> list[Table]:
        """For ``rich.print``: two numbers of shots fit beside each other into a terminal."""
        ways = next(iter(self.cells.values())).ways
        title = f"{ways}-way accuracy on new classes; gain over the best simple method; * recommended"
        pairs = [[*self.cells][i : i + 2] for i in range(0, len(self.cells), 2)]
        return [terminal_table(title, self.lines(pair), "lr") for pair in pairs]

    def failures(self) -> list[str]:
        """Why methods have no score, and trials that failed, in lines."""
        found: dict[str, list[int]] = {}
        for shots, cell in self.cells.items():
            for row in cell.rows:
                if row.error:
                    found.setdefault(f"{row.name}: {row.error}", []).append(shots)
        return [f"{text} ({', '.join(f'{k}-shot' for k in shots)})" for text, shots in found.items()]

    def to_json(self) -> dict[str, Any]:
        """Plain values for ``json.dump``."""
        cells = {}
        for shots, cell in self.cells.items():
            rows = {
                row.name: {
                    "settings": row.settings,
                    "validation": plain_interval(row.validation),
                    "test": plain_interval(row.test),
                    "over the best simple one": plain_interval(row.gain),
                    "trials": row.trials,
                    "error": row.error,
                }
                for row in cell.rows
            }
            winner = cell.winner
            cells[str(shots)] = {
                "ways": cell.ways,
                "chosen by validation": cell.chosen,
                "recommended": cell.recommended,
                "winner": str(winner.relative_to(self.folder)) if isinstance(winner, Path) else asdict(winner),
                "best trained": cell.trained,
                "best simple in the test": cell.rival,
                "gain": plain_interval(cell.gain),
                "pays": cell.pays,
                "verdict": cell.verdict(),
                "validation tasks": cell.validation_tasks,
                "test tasks": cell.test_tasks,
                "methods": rows,
            }
        return {
            "protocol": dict(self.protocol),
            "remarks": list(self.remarks),
            "shots": cells,
            "trials": [dict(one) for one in self.trials],
        }


def found_in(plan: Plan, protocol: Mapping[str, Any], tried: Sequence[Mapping[str, Any]]) -> FitResult:
    """What the files of a fit's folder say.

    Args:
        plan: of the fit.
        protocol: for the reader.
        tried: every trial that was begun, as its file says.
    """
    cells = {shots: _cell(plan, shots, tried) for shots in plan.shots}
    return FitResult(plan.folder, cells, protocol, plan.prepared.remarks, tried)


def _cell(plan: Plan, shots: int, tried: Sequence[Mapping[str, Any]]) -> Cell:
    place = plan.folder / "result" / f"{shots}shot"
    choice = read_json(place / "choice.json")
    validation, test = (read_scores(place / f"{name}.csv") for name in ("validation", "test"))
    trained = choice["trained"]
    rival, gain = None, None
    simple = tuple(SIMPLE)
    there = [name for name in simple if name in test]
    if there:
        rival = max(there, key=lambda name: float(test[name].mean()))
        if trained is not None:
            rival, gain = gain_of_training(test, trained, simple)
    known = read_json(plan.folder / "simple" / f"{shots}shot" / TRIAL)
    rows = []
    for name in (*SIMPLE, *TRAINED):
        if name in SIMPLE:
            found = known.get("found", {}).get(name, {})
            error = found.get("error", known.get("error", ""))
            settings, trials = _simple_text(found.get("settings")), len(found.get("tried", []))
        else:
            settings, trials, error = _trained_facts(plan, name, shots, tried)
        over = None if rival is None or name not in test or name == rival else paired(test[name], test[rival])
        rows.append(
            Row(
                name,
                settings,
                finite_interval(validation[name]) if name in validation else None,
                finite_interval(test[name]) if name in test else None,
                over,
                trials,
                error if error.startswith("not tried") or not error else f"failed: {error}",
            )
        )
    chosen = choice["recommended"]
    best = decided(test, chosen, [name for name in (rival, trained) if name is not None])
    winner: SimpleSettings | Path
    winner = SimpleSettings(**choice["settings"][best]) if best in SIMPLE else plan.folder / choice["runs"][best]
    counts = len(next(iter(validation.values()))), len(next(iter(test.values())))
    return Cell(shots, plan.prepared.ways, tuple(rows), chosen, best, trained, rival, gain, winner, *counts)


def _simple_text(settings: Mapping[str, Any] | None) -> str:
    if settings is None:
        return ""
    centred = "centred" if settings["centred"] else "plain"
    return centred if settings["rule"] == "class means" else f"{centred}, penalty {settings['penalty']:g}"


def _trained_facts(plan: Plan, name: str, shots: int, tried: Sequence[Mapping[str, Any]]) -> tuple[str, int, str]:
    """Settings in words, the number of trials that ended, and what went wrong."""
    ours = [one for one in tried if (one["method"], one["shots"]) == (name, shots)]
    errors = [f"{one['error']}" for one in ours if one.get("error")]
    ended = [one for one in ours if "value" in one]
    best = best_trial(plan, name, shots)
    if best is not None:
        settings = next(one["settings"] for one in ended if one["trial"] == best.index)
        failed = f"{len(errors)} of {len(errors) + len(ended)} trials, {errors[0]}" if errors else ""
        return settings_text(settings), len(ended), failed
    skipped = next((one["skipped"] for one in ours if one.get("skipped")), "there was no time left for it")
    return "", 0, errors[0] if errors else f"not tried: {skipped}"
