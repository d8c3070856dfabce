"""What a search found, and the files that say so."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import optuna
from optuna.trial import TrialState

from fewstep.experiments.search.study import Plan, by_index, deciding, quiet
from fewstep.recipes import Config, Range, with_settings

FEWEST = 10
"""Trials from which on importances are estimated."""


@dataclass(frozen=True)
class Trial:
    """What became of one configuration.

    Attributes:
        index: its number, from 0.
        state: "complete", "pruned", "failed", "running" or "waiting".
        value: best validation score, of a pruned or running one so far; None where there is none.
        best_step: the meta-step of that score.
        steps: meta-steps taken.
        seconds: of training.
        settings: what was drawn.
        reason: why it failed; empty otherwise.
    """

    index: int
    state: str
    value: float | None
    best_step: int | None
    steps: int | None
    seconds: float | None
    settings: Mapping[str, float]
    reason: str


@dataclass(frozen=True)
class SearchResult:
    """The result of a search.

    Attributes:
        config: the best configuration.
        value: its best validation score.
        index: its number.
        trials: how many configurations there are of each state of :class:`Trial`.
        study: Optuna's name of the study.
        importances: the share of each setting in the variance of the score (fANOVA); empty where there are too few
            trials, or all score the same.
        weighed: how many trials that is of: complete ones, or in a search that prunes all that came to its first rung.
        weighed_at: the meta-steps of that rung.
        rows: every configuration.
        space: what was drawn.
        protocol: what the search's report must state, by name.
        score: name of the validation score.
        higher_is_better: accuracy rather than error.
    """

    config: Config
    value: float
    index: int
    trials: Mapping[str, int]
    study: str
    importances: Mapping[str, float]
    weighed: int
    weighed_at: int | None
    rows: Sequence[Trial]
    space: Sequence[Range]
    protocol: Mapping[str, Any]
    score: str
    higher_is_better: bool

    @property
    def ranked(self) -> list[Trial]:
        """Complete trials, best first."""
        return ranked(self.rows, self.higher_is_better)

    def to_json(self) -> dict[str, Any]:
        """The result as plain values for ``json.dump``; the best configuration is in a file of its own."""
        return {
            "recipe": self.config.recipe,
            "protocol": dict(self.protocol),
            "score": self.score,
            "higher_is_better": self.higher_is_better,
            "best": self.index,
            "trials": dict(self.trials),
            "space": [asdict(range) for range in self.space],
            "rows": [{**asdict(row), "value": finite(row.value)} for row in self.rows],
            "importances": dict(self.importances),
            "importances in words": self.importance_text(),
        }

    def importance_text(self) -> str:
        """The importances in a line, or why there are none."""
        these = f"{self.weighed} trials after {self.weighed_at} meta-steps"
        if self.weighed_at is None:
            these = f"{self.weighed} complete trials"
        if self.importances:
            shares = ", ".join(f"{name} {share:.2f}" for name, share in self.importances.items())
            return f"Shares of the variance of the score among {these} (fANOVA): {shares}."
        if self.weighed < FEWEST:
            return f"{these} are too few to estimate importances; {FEWEST} are needed."
        return f"All {these} have the same score: no setting has made a difference."


def finite(value: float | None) -> float | None:
    """The number, for JSON, which has none that are not finite."""
    return value if value is not None and math.isfinite(value) else None


_STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}


def rows_of(study: optuna.Study, plan: Plan) -> list[Trial]:
    """What became of every configuration of a study so far."""
    rows = []
    for index, attempts in by_index(study.get_trials(deepcopy=False)).items():
        trial = deciding(attempts)
        state, attributes = _STATES[trial.state], trial.user_attrs
        value = trial.value if trial.state in (TrialState.COMPLETE, TrialState.PRUNED) else None
        if value is None and state != "failed" and trial.intermediate_values:
            value = trial.intermediate_values[max(trial.intermediate_values)]
        reason = attributes.get("reason", f"killed {len(attempts)} times") if state == "failed" else ""
        numbers = attributes.get("best_step"), attributes.get("steps"), attributes.get("seconds")
        rows.append(Trial(index, state, value, *numbers, plan.draw(index), reason))
    return rows


def ranked(rows: Sequence[Trial], higher_is_better: bool) -> list[Trial]:
    """Complete trials, best first, the first of equals."""
    scored = [(row.value, row) for row in rows if row.state == "complete" and row.value is not None]
    ordered = sorted(scored, key=lambda one: -one[0] if higher_is_better else one[0])
    return [row for _, row in ordered]


def found_in(study: optuna.Study, plan: Plan, protocol: Mapping[str, Any], score: str) -> SearchResult:
    """The result of a study that has ended.

    Raises:
        ValueError: when no configuration is complete, with the first reason.
    """
    rows = rows_of(study, plan)
    best = next(iter(ranked(rows, plan.higher_is_better)), None)
    if best is None or best.value is None:
        why = next((f"; trial {row.index}: {row.reason}" for row in rows if row.reason), "")
        raise ValueError(f"none of {len(rows)} configurations reached the end of its training{why}.")
    states = [row.state for row in rows]
    scores, at = _weighed(study, plan, rows)
    return SearchResult(
        with_settings(plan.config, best.settings),
        best.value,
        best.index,
        {state: states.count(state) for state in _STATES.values() if state in states},
        plan.name,
        importances(scores, plan),
        len(scores),
        at,
        rows,
        plan.space,
        protocol,
        score,
        plan.higher_is_better,
    )


def _weighed(study: optuna.Study, plan: Plan, rows: Sequence[Trial]) -> tuple[dict[int, float], int | None]:
    """Scores after the same meta-steps, by configuration, and those meta-steps where they are not the last ones."""
    if plan.halving is None or not plan.halving.rungs:
        return {row.index: row.value for row in rows if row.state == "complete" and row.value is not None}, None
    first = plan.halving.rungs[0]
    attempts = by_index(study.get_trials(deepcopy=False))
    reached = {index: deciding(there).intermediate_values for index, there in attempts.items()}
    return {index: values[first] for index, values in reached.items() if first in values}, first


def importances(scores: Mapping[int, float], plan: Plan) -> dict[str, float]:
    """fANOVA's shares in scores of configurations, largest first; none where they cannot be estimated."""
    if len(scores) < FEWEST or math.isclose(min(scores.values()), max(scores.values())):
        return {}
    # A study of its own, in the order of configurations: the forest depends on it, and the order of processes must not
    # change the result.
    with quiet():
        study = optuna.create_study(direction="maximize" if plan.higher_is_better else "minimize")
    ranges: dict[str, optuna.distributions.BaseDistribution] = {
        r.setting: optuna.distributions.IntDistribution(int(r.low), int(r.high), log=r.log)
        if r.whole
        else optuna.distributions.FloatDistribution(r.low, r.high, log=r.log)
        for r in plan.space
    }
    for index, score in scores.items():
        study.add_trial(optuna.create_trial(value=score, params=plan.draw(index), distributions=ranges))
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    return {name: float(share) for name, share in evaluator.evaluate(study).items()}
