"""Eight threads on one fitted estimator, and on eight estimators of one model: is every answer the one given alone?"""

from __future__ import annotations

import shutil
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fewstep
from fewstep import FewShotClassifier

THREADS = 8

Ask = Callable[[int], NDArray[Any]]
"""The answer to question i, which is a function of i alone."""


def cases(inputs: Path, rounds: int) -> dict[str, Callable[[Path], dict[str, Any]]]:
    """What is shared, by its name."""
    return {
        f"{name}, switching every {interval:g} s": partial(_asked, make, interval, rounds, inputs)
        for name, make in {
            "one fitted classifier": _fitted,
            "classifiers of one model": _of_one_model,
            "a folder, opened by each": _of_one_folder,
            "one fitted regressor": _regressor,
        }.items()
        for interval in (5e-3, 1e-5)
    }


def _task(i: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    source = np.random.default_rng(i)
    centres = source.normal(size=(3, 1, 16))
    rows = (centres + source.normal(size=(3, 12, 16))).astype(np.float32)
    return rows[:, :2].reshape(-1, 16), np.repeat(np.arange(3), 2), rows[:, 2:].reshape(-1, 16)


def _fitted(inputs: Path) -> Ask:
    x, y, _ = _task(1000)
    one = fewstep.load(inputs / "run").fit(x, y)
    return lambda i: one.predict_proba(_task(i)[2])


def _of_one_model(inputs: Path) -> Ask:
    model = fewstep.load(inputs / "run").model

    def ask(i: int) -> NDArray[Any]:
        x, y, query = _task(i)
        found: NDArray[Any] = FewShotClassifier(model).fit(x, y).predict_proba(query)
        return found

    return ask


def _of_one_folder(inputs: Path) -> Ask:
    def ask(i: int) -> NDArray[Any]:
        x, y, query = _task(i)
        found: NDArray[Any] = fewstep.load(inputs / "run").fit(x, y).predict_proba(query)
        return found

    return ask


def _regressor(inputs: Path) -> Ask:
    x = np.linspace(-4, 4, 10)[:, None]
    one = fewstep.load(inputs / "expected/compare, recipes/out/runs/small-maml").fit(x, np.sin(x[:, 0]))
    return lambda i: np.asarray(one.predict(np.random.default_rng(i).uniform(-5, 5, (20, 1))))


def _asked(make: Callable[[Path], Ask], interval: float, rounds: int, inputs: Path, work: Path) -> dict[str, Any]:
    questions = range(THREADS * rounds)
    alone = [make(inputs)(i) for i in questions[:: max(1, rounds // 4)]]
    expected = dict(zip(questions[:: max(1, rounds // 4)], alone, strict=True))
    ask, answers, errors = make(inputs), dict[int, NDArray[Any]](), list[str]()

    def thread(first: int) -> None:
        for i in questions[first::THREADS]:
            try:
                answers[i] = ask(i)
            except Exception as error:
                errors.append(f"{type(error).__name__}: {error}")

    before = sys.getswitchinterval()
    sys.setswitchinterval(interval)
    threads = [threading.Thread(target=thread, args=(i,)) for i in range(THREADS)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    sys.setswitchinterval(before)
    for i in questions:
        if i not in expected:
            expected[i] = ask(i)  # alone again, by what was shared: it must not be broken for good
    wrong = [i for i, answer in answers.items() if not np.array_equal(answer, expected[i])]
    problems = [f"{len(wrong)} of {len(answers)} answers are others"] if wrong else []
    problems += [f"{len(errors)} errors, such as {errors[0]}"] if errors else []
    shutil.rmtree(work, ignore_errors=True)
    return {"command": "threads", "calls": len(answers), "wrong": len(wrong), "problems": problems}
