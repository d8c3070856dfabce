"""Commands that are killed, or asked to stop, and go on: do they come to the bits of one that was left alone?"""

from __future__ import annotations

import random
import re
import shlex
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from processes import Started, at, in_write, run, waits_for
from same import differences
from small import SMALL, Small

from fewstep.training.checkpoint import BEST, LAST, read_state

STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR1: 138}
"""What a command that was asked to stop ends with."""


@dataclass(frozen=True)
class Case:
    """One command that is disturbed.

    Attributes:
        number: of the case.
        of: the command.
        signal: what it is sent.
        to: "all" its processes, the "first", or a "worker".
        moment: a share of the time that it takes.
        write: in this half-written file instead; 0 for none.
        again: the command that goes on is killed too, at this share.
    """

    number: int
    of: Small
    signal: signal.Signals
    to: str
    moment: float
    write: int
    again: float | None


def drawn(seed: int, number: int, kill: bool) -> Case:
    """Case number ``number``: a function of the seed and it alone."""
    source = random.Random(f"{seed} {number} {kill}")
    # embed has nothing to save, and torchrun has a status of its own.
    some = [one for one in SMALL.values() if kill or not (one.command == "embed" or one.ranks)]
    of = source.choices(some, [one.weight for one in some])[0]
    sent = signal.SIGKILL if kill else list(STATUS)[number % 3]
    pairs = zip(of.words, of.words[1:], strict=False)
    several = of.ranks or any(pair in (("--workers", "2"), ("--processes", "2")) for pair in pairs)
    to = source.choice(["all", "first", "worker"] if several and kill else ["all", "first"])
    write = source.randint(1, 12) if kill and number % 3 == 0 else 0
    again = source.random() if source.random() < 0.25 else None
    return Case(number, of, sent, to, source.random(), write, again)


def disturbed(case: Case, inputs: Path, seconds: float, work: Path) -> dict[str, Any]:
    """Run a case; what happened.

    Args:
        case: what is done.
        inputs: with ``expected/NAME/OUT`` of every command.
        seconds: that the command takes.
        work: a folder for it.
    """
    here, cache = work / "here", work / "cache"
    told: dict[str, Any] = {"case": case.number, "command": case.of.name, "signal": case.signal.name, "to": case.to}
    spawn = case.number % 4 == 0 and "workers" in " ".join(case.of.words)
    share, seconds = case.moment, seconds * (3 if spawn else 1)
    for attempt in range(6):
        shutil.rmtree(work, ignore_errors=True)
        here.mkdir(parents=True)
        if not case.of.fresh:
            shutil.copytree(inputs / "cache", cache)
        begun = Started(case.of.given(inputs), here, cache, work / "0.txt", spawn=spawn, ranks=case.of.ranks)
        writes = max(1, case.write >> attempt)
        if case.write:
            sent = waits_for(begun, in_write(work, writes)) and begun.sends(case.signal, case.to)
        else:
            sent = waits_for(begun, at(share * seconds)) and begun.sends(case.signal, case.to)
        stage, in_a_write = stage_of(here / case.of.out), [path.name for path in work.rglob("*.part")]
        status = begun.wait()
        left = begun.left()
        if sent and (case.signal != signal.SIGKILL or case.to == "worker" or status == -signal.SIGKILL):
            break
        share, seconds = 0.95 * share, time.monotonic() - begun.began  # it took that long this time
    else:
        return told | {"problems": ["it always ended before"]}
    told |= {"status": status, "moment": round(time.monotonic() - begun.began, 2), "stage": stage}
    told |= {"in a write": _written(in_a_write), "outlived": len(left)}
    problems = [f"{len(left)} processes outlived it: {'; '.join(left)}"] if left else []
    words = case.of.again(inputs, here)
    if case.signal != signal.SIGKILL:
        advice, wrong = asked_to_stop(begun, case, status)
        problems += wrong
        words = advice or words
    kills = 1
    if case.again is not None:
        second = Started(words, here, cache, work / "1.txt", ranks=case.of.ranks)
        if waits_for(second, at(case.again * seconds)) and second.sends(signal.SIGKILL):
            kills += 1
        second.wait()
        second.left()
        words = case.of.again(inputs, here)
    told["kills"] = kills
    expected = inputs / "expected" / case.of.name / case.of.out
    status, said = run(words, here, cache, work / "2.txt", case.of.ranks)
    there = status == 2 and "exists: " in said and case.of.command == "embed"  # it had been done before the kill
    if status != 0 and not there:
        problems.append(f"{shlex.join(words[:1] + words[-2:])} ended with {status}: {last_line(said)}")
        if (here / case.of.out).exists() and case.of.kept and words[1] == "--resume":
            status, said = run(case.of.given(inputs), here, cache, work / "3.txt", case.of.ranks)
            problems.append(f"the same command as at first: {status}: {last_line(said)}")
    else:
        problems += differences(here / case.of.out, expected)
        told["parts left"] = len(list(here.rglob("*.part")))  # hidden, and in nobody's way
    if not problems:
        shutil.rmtree(work, ignore_errors=True)
    return told | {"problems": problems}


def asked_to_stop(begun: Started, case: Case, status: int) -> tuple[list[str], list[str]]:
    """The words that go on, as the command says them; and what is wrong with how it ended."""
    said = begun.said
    line = re.search(r"continue with: fewstep (.*)", said)
    wrong = []
    if "Traceback" in said:
        wrong.append(f"a traceback: {last_line(said)}")
    if status == 0:
        return [], wrong  # it was about to end
    if status != STATUS[case.signal]:  # type: ignore[index]
        wrong.append(f"status {status} after {case.signal.name}: {last_line(said)}")
    elif line is None:
        wrong.append(f"no line says how to go on: {last_line(said)}")
    return (shlex.split(line[1]) if line else []), wrong


def last_line(said: str) -> str:
    """What a command said last."""
    return (said.strip().splitlines() or [""])[-1][:400]


def stage_of(out: Path) -> str:
    """How far a command had come, by what it has left."""
    if not out.exists():
        return "before anything was written"
    if out.is_file():
        return "done"
    runs = sorted({path.parent for name in ("config.json", "pretraining.json", LAST) for path in out.rglob(name)})
    states = [_state(folder) for folder in runs]
    name = {"search.json": "search", "ablation.json": "ablate"}
    what = next((text for mark, text in name.items() if (out / mark).exists()), "")
    if not runs:
        return "a beginning"
    if "training" in states:
        return "while a trial trains" if what == "search" else "while training"
    if "begun" in states:
        return "before the first checkpoint"
    if what == "search":
        return "between trials"
    return "after training"


def _state(folder: Path) -> str:
    if not (folder / LAST).exists():
        return "begun"
    try:
        return "trained" if read_state(folder / LAST).finished else "training"
    except ValueError:  # it is being replaced now, by a worker that lives
        return "training"


def _written(parts: list[str]) -> str:
    kinds = {part.split(".")[1] if part.startswith(".") else part for part in parts}
    checkpoint = any(part.startswith((f".{LAST}", f".{BEST}")) for part in parts)
    return "a checkpoint" if checkpoint else ", ".join(sorted(kinds))
