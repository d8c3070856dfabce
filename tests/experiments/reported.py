"""Folders as runs and procedures leave them, with names that would be markup, made without training anything."""

import math
from pathlib import Path

import numpy as np

from fewstep.data.storage.files import csv_text, json_text
from fewstep.evaluation import Evaluation
from fewstep.evaluation.statistics import Interval
from fewstep.evaluation.tables import task_rows, write_files
from fewstep.experiments.ablate import AblatedRow, AblationResult, Budget
from fewstep.experiments.compare.result import Comparison, MethodScores
from fewstep.experiments.fit.result import Cell, FitResult, Row
from fewstep.experiments.repeat.result import RepeatResult, TrainingSummary
from fewstep.experiments.repeat.tested import SeedScores
from fewstep.experiments.report.details import calibration
from fewstep.experiments.search.result import SearchResult, Trial
from fewstep.recipes import RECIPES, Range, to_json

HOSTILE = "<script>alert('1')</script>[bold]&amp;"
PROTOCOL = {"dataset": HOSTILE, "ways": 5, "shots": 1, "task seed": 0}
TASKS = 60


def scores(mean: float, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, 0.1, TASKS).clip(0, 1)


def log(folder: Path, seed: int = 0) -> None:
    rows: list[list[object]] = [["step", "split", "name", "value"]]
    for step in range(50, 2001, 50):
        rows.append([step, "train", "loss", 2 * math.exp(-step / 400) + 0.1 + 0.03 * math.sin(step + seed)])
        rows.append([step, "train", "accuracy", 0.95 - 0.7 * math.exp(-step / 400)])
        if step % 500 == 0:
            rows.append([step, "validation", "accuracy", 0.93 - 0.01 * seed - 0.7 * math.exp(-step / 400)])
    write_files(folder, {"metrics.csv": csv_text(rows)})


def run(folder: Path) -> Path:
    known = {"adapted": scores(0.85, 0), "unadapted": scores(0.6, 1), "ridge": scores(0.8, 2), HOSTILE: scores(0.2, 3)}
    found = Evaluation(known, "accuracy", True, False, PROTOCOL, ("ridge", HOSTILE))
    random = np.random.default_rng(0)
    probabilities, labels = random.dirichlet([0.3] * 5, (4, 25)), random.integers(0, 5, (4, 25))
    dot = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"
    hard = {"name": HOSTILE, "right": 0.5, "queries": 40, "pictures": [dot], "other": "owl", "other_pictures": []}
    details = {"about": "Of 4.", "calibration": calibration(probabilities, labels)}
    details |= {"classes": [hard | {"mistaken": 0.25, "met": 20}]}
    environment = {"command": f"fewstep train {HOSTILE}", "versions": {"torch": "2.13"}, "peak_memory": {"cpu": 2**30}}
    log(folder)
    files = {
        "config.json": {"recipe": HOSTILE, "seed": 0},
        "environment.json": environment,
        "test.json": found.to_json(),
    }
    write_files(folder, {**files, "test_tasks.csv": task_rows(known), "details.json": json_text(details)})
    return folder


def repetition(folder: Path) -> Path:
    seeds = (0, 1, 2)
    known = {"adapted": np.stack([scores(0.8 + 0.01 * seed, seed) for seed in seeds])}
    plain = {HOSTILE: scores(0.7, 7)}
    tested = SeedScores("test", known, plain, "accuracy", True, True, PROTOCOL)
    trained = tuple(TrainingSummary(2000, 1500, 0.9, 12.5, 0) for _ in seeds)
    folders = tuple(folder / f"seed-{seed}" for seed in seeds)
    for seed, one in zip(seeds, folders, strict=True):
        log(one, seed)
    result = RepeatResult(RECIPES["maml-sinusoid"](), seeds, folders, trained, (tested,))
    runs = {f"seed {seed}": known["adapted"][seed] for seed in seeds}
    write_files(folder, {"tasks.csv": task_rows(runs | plain), "repeat.json": result.to_json()})
    return folder


def comparison(folder: Path) -> Path:
    rows = [
        MethodScores(label="leo", scores=scores(0.85, 0), unadapted=scores(0.6, 1), inner_steps=(5, 5), steps=500),
        MethodScores(label=HOSTILE, scores=scores(0.8, 2), published=("97.5 ± 0.1, of others",), transductive=True),
        MethodScores(label="diverged", scores=np.full(TASKS, np.nan)),
        MethodScores(label="ridge (images)", scores=scores(0.7, 3), baseline=True, inputs="images"),
    ]
    result = Comparison(rows, "accuracy", True, "leo", PROTOCOL, "here", 1)
    tasks = task_rows({row.label: row.scores for row in rows})
    write_files(folder, {"tasks.csv": tasks, "comparison.json": result.to_json()})
    return folder


def search(folder: Path) -> Path:
    random, space = (
        np.random.default_rng(0),
        (Range("training.rate", 1e-4, 1e-1, log=True), Range("method.dropout", 0.0, 0.5)),
    )
    states = ["complete"] * 9 + ["pruned", "failed", "waiting"]
    rows = []
    for index, state in enumerate(states):
        value = float(random.uniform(0.5, 0.9)) if state in ("complete", "pruned") else None
        drawn = {"training.rate": 10 ** random.uniform(-4, -1), "method.dropout": random.uniform(0, 0.5)}
        counts = (400, 500, 12.25) if value is not None else (None, None, None)
        rows.append(Trial(index, state, value, *counts, drawn, HOSTILE if state == "failed" else ""))
    best = max((row for row in rows if row.state == "complete"), key=lambda row: row.value or 0.0)
    config, told = RECIPES["leo-features-1shot"](), {"complete": 9, "pruned": 1, "failed": 1, "waiting": 1}
    shares = {"training.rate": 0.9, "method.dropout": 0.1}
    weighed = shares, 11, 100
    found = SearchResult(
        config, best.value or 0.0, best.index, told, "s", *weighed, rows, space, PROTOCOL, "accuracy", True
    )
    write_files(folder, {"search.json": {}, "result.json": found.to_json(), "best.json": to_json(config)})
    return folder


def ablation(folder: Path) -> Path:
    def tested(mean: float) -> SeedScores:
        known = {"adapted": np.stack([scores(mean, seed) for seed in (1, 2)])}
        return SeedScores("test", known, {}, "accuracy", True, False, PROTOCOL)

    rows = [
        AblatedRow(name="Meta-SGD", slug="meta-sgd", seeds=(1, 2), tested=tested(0.7), validation=0.75),
        AblatedRow(name=HOSTILE, slug="generator-only", seeds=(1, 2), failure=HOSTILE),
        AblatedRow(name="LEO (no fine-tuning)", slug="no-finetuning", seeds=(1, 2)),
        AblatedRow(name="LEO", slug="leo", seeds=(1, 2), tested=tested(0.8), validation=0.85, found={"rate": 0.1}),
    ]
    protocol = PROTOCOL | {"tasks": TASKS}
    result = AblationResult(
        rows, {"ridge": scores(0.75, 9)}, Budget(4, 2, 10, 2, 10, 4), protocol, "accuracy", True, False
    )
    tasks = {row.name: row.tested.scores["adapted"].mean(0) for row in rows if row.tested is not None}
    write_files(folder, {"ablation.json": {}, "tasks.csv": task_rows(tasks), "result.json": result.to_json()})
    return folder


def fit(folder: Path) -> Path:
    value, gain = Interval(0.8, 0.01, TASKS), Interval(0.02, 0.005, TASKS)
    rows = (
        Row(HOSTILE, "scale 1", value, value, None, 3, ""),
        Row("LEO", "rate 0.1", value, Interval(0.82, 0.01, TASKS), gain, 2, ""),
        Row("ProtoNet", "", None, None, None, 0, "failed: no room"),
    )
    cells = {k: Cell(k, 5, rows, "LEO", "LEO", "LEO", HOSTILE, gain, folder / "trials", 200, TASKS) for k in (1, 5)}
    trials = [
        {
            "method": "LEO",
            "shots": 1,
            "trial": 0,
            "value": 0.8,
            "steps": 100,
            "seconds": 3.0,
            "settings": {"rate": 0.1},
        },
        {"method": "ProtoNet", "shots": 1, "trial": 0, "error": HOSTILE},
    ]
    found = FitResult(folder, cells, {"data": HOSTILE, "classes": {"test": 8}}, [HOSTILE], trials)
    test = task_rows({HOSTILE: scores(0.8, 0), "LEO": scores(0.82, 1)})
    write_files(folder, {"fit.json": {}, "result.json": found.to_json()})
    write_files(folder / "result" / "1shot", {"test.csv": test})
    return folder


KINDS = {kind.__name__: kind for kind in (run, repetition, comparison, search, ablation, fit)}


def every_kind(folder: Path) -> dict[str, Path]:
    """A folder of each kind, below one with a hostile name."""
    return {name: make(folder / "<b>[bold]" / name) for name, make in KINDS.items()}
