"""Folders that are full, cannot be written, or belong to another process. Mounts, and so needs root."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from damage import READERS, _words, make_stopped, undamaged
from kills import last_line
from processes import Started, run
from same import differences
from small import SMALL, Small

Case = Callable[[Path], dict[str, Any]]

ALONE = {name: of for name, of in SMALL.items() if not of.ranks}
"""The commands, but for what torchrun begins: what it would show is its own."""


def one_line(said: str, status: int, *words: str) -> list[str]:
    """What is wrong with a refusal, which should be one line with some words, and status 2."""
    errors = said[said.rindex("error:") :].strip() if "error:" in said else ""
    if "Traceback" in said:
        return [f"a traceback, status {status}: {last_line(said)}"]
    if status not in (1, 2) or not errors or len(errors.splitlines()) > 1:
        return [f"not an error of one line, status {status}: {said[-400:]}"]
    return [] if not words or any(word in errors for word in words) else [f"it does not say {words}: {errors[:300]}"]


# -- full --------------------------------------------------------------------------------------------------------------


@contextmanager
def mounted(place: Path, size: int) -> Iterator[None]:
    """A file system in memory, of so many KiB."""
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(place)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def full(inputs: Path) -> dict[str, Case]:
    """Every command where the disk ends at a share of what it needs; then there is room, and it goes on."""
    shares = (0.02, 0.4, 0.9)
    return {
        f"{name}, {share:.0%} of the room": partial(_full, of, share, inputs)
        for name, of in ALONE.items()
        for share in shares
    }


def _full(of: Small, share: float, inputs: Path, work: Path) -> dict[str, Any]:
    shutil.rmtree(work, ignore_errors=True)
    here, cache = work / "here", work / "cache"
    if not of.fresh:
        shutil.copytree(inputs / "cache", cache)
    expected = inputs / "expected" / of.name / of.out
    files = [expected] if expected.is_file() else [p for p in expected.rglob("*") if p.is_file()]
    need = sum(-(-path.stat().st_size // 4096) * 4 for path in files) + 4
    told: dict[str, Any] = {"command": of.name, "kind": "full"}
    with mounted(here, max(8, int(share * need))):
        status, said = run(of.given(inputs), here, cache, work / "0.txt")
        problems = [] if status == 0 else one_line(said, status, "space", "full")
        told["outcome"] = "there was room" if status == 0 else "refused"
        subprocess.run(["mount", "-o", "remount,size=1g", str(here)], check=True)
        if status:
            words = of.again(inputs, here)
            status, said = run(words, here, cache, work / "1.txt")
            if status:
                problems.append(f"with room, {words[:2]} ended with {status}: {last_line(said)}")
        if not status:
            problems += differences(here / of.out, expected)
    return told | {"problems": problems}


# -- read-only ---------------------------------------------------------------------------------------------------------


@contextmanager
def read_only(place: Path) -> Iterator[None]:
    """A folder, as it is, that nobody can write to."""
    subprocess.run(["mount", "--bind", str(place), str(place)], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(place)], check=True)
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def locked(inputs: Path) -> dict[str, Case]:
    """Commands that write to a folder of which only reading is allowed, that read one, and that have such a cache."""
    make_stopped(inputs)
    found: dict[str, Case] = {}
    for name, of in ALONE.items():
        found[f"{name} to a read-only folder"] = partial(_writes, of, inputs)
        found[f"{name} with a read-only cache"] = partial(_cached, of, inputs)
    for name in READERS:
        undamaged(name, inputs)
        found[f"{name} of a read-only folder"] = partial(_reads, name, inputs)
    return found


def _writes(of: Small, inputs: Path, work: Path) -> dict[str, Any]:
    shutil.rmtree(work, ignore_errors=True)
    (work / "here").mkdir(parents=True)
    with read_only(work / "here"):
        status, said = run(of.given(inputs), work / "here", inputs / "cache", work / "0.txt")
    return {
        "command": of.name,
        "kind": "read-only folder",
        "outcome": "refused",
        "problems": one_line(said, status, "ead-only"),
    }


def _cached(of: Small, inputs: Path, work: Path) -> dict[str, Any]:
    """With all that it needs in there."""
    shutil.rmtree(work, ignore_errors=True)
    here, cache = work / "here", work / "cache"
    (work / "first").mkdir(parents=True)
    here.mkdir()
    shutil.copytree(inputs / "cache", cache)
    told = {"command": of.name, "kind": "read-only cache"}
    with read_only(cache) if not of.fresh else mounted(work / "none", 64):
        if of.fresh:  # fills it first
            run(of.given(inputs), work / "first", cache, work / "0.txt")
            subprocess.run(["mount", "--bind", str(cache), str(cache)], check=True)
            subprocess.run(["mount", "-o", "remount,ro,bind", str(cache)], check=True)
        try:
            status, said = run(of.given(inputs), here, cache, work / "1.txt")
        finally:
            if of.fresh:
                subprocess.run(["umount", "-l", str(cache)], check=True)
    problems = [f"status {status}: {last_line(said)}"] if status else []
    problems += [] if status else differences(here / of.out, inputs / "expected" / of.name / of.out)
    return told | {"outcome": "used" if not problems else "not used", "problems": problems}


def _reads(name: str, inputs: Path, work: Path) -> dict[str, Any]:
    """What writes to the folder itself is refused, what writes elsewhere comes to its result."""
    shutil.rmtree(work, ignore_errors=True)
    here, reader = work / "here", READERS[name]
    here.mkdir(parents=True)
    shutil.copytree(inputs / reader.folder, here / "folder")
    told = {"command": name, "kind": "read-only folder, to be read"}
    with read_only(here / "folder"):
        status, said = run(_words(reader, inputs), here, inputs / "cache", work / "0.txt")
        if reader.result.startswith("FOLDER"):
            return told | {"outcome": "refused", "problems": one_line(said, status, "ead-only")}
        problems = [f"status {status}: {last_line(said)}"] if status else []
        problems += [] if status else differences(here / reader.result, inputs / "read" / name / reader.result)
    return told | {"outcome": "read", "problems": problems}


# -- two at once -------------------------------------------------------------------------------------------------------


def shared(inputs: Path, seconds: dict[str, float]) -> dict[str, Case]:
    """Two processes that want one folder: at once, a moment apart, and half-way."""
    make_stopped(inputs)
    found: dict[str, Case] = {}
    for name, of in ALONE.items():
        for share in (0.0, 0.5):
            apart = share * seconds[name]
            found[f"{name} twice, {share:.0%} apart"] = partial(_twice, of, apart, inputs)
    for name in ("train", "pretrain"):
        for share in (0.0, 0.1, 0.3):
            apart = share * seconds[name]
            found[f"{name} --resume twice, {share:.0%} apart"] = partial(_resumed, name, apart, inputs)
    for i in range(3):
        found[f"train twice without --out, {i}"] = partial(_nameless, inputs)
        found[f"train --resume while it trains, {i}"] = partial(_joined, 0.3 + 0.2 * i, seconds, inputs)
    return found


def _two(words: list[list[str]], apart: float, here: Path, cache: Path, work: Path) -> tuple[list[int], list[str]]:
    one = Started(words[0], here, cache, work / "0.txt")
    time.sleep(apart)
    two = Started(words[1], here, cache, work / "1.txt")
    return [one.wait(), two.wait()], [one.said, two.said]


def _judged(statuses: list[int], said: list[str], together: bool) -> list[str]:
    problems = []
    for status, words in zip(statuses, said, strict=True):
        if status:
            problems += one_line(words, status)
    if 0 not in statuses:
        problems.append(f"neither came to its end: {statuses}, {[last_line(words) for words in said]}")
    if together and any(statuses):
        problems.append(f"they do not share the work: {statuses}")
    return problems


def _twice(of: Small, apart: float, inputs: Path, work: Path) -> dict[str, Any]:
    shutil.rmtree(work, ignore_errors=True)
    here, cache = work / "here", work / "cache"
    here.mkdir(parents=True)
    if not of.fresh:
        shutil.copytree(inputs / "cache", cache)
    words = of.given(inputs)
    statuses, said = _two([words, words], apart, here, cache, work)
    problems = _judged(statuses, said, together=of.command == "search")
    problems += differences(here / of.out, inputs / "expected" / of.name / of.out)
    outcome = "both" if not any(statuses) else "one, and the other is refused"
    return {"command": of.name, "kind": "one folder", "outcome": outcome, "problems": problems}


def _resumed(name: str, apart: float, inputs: Path, work: Path) -> dict[str, Any]:
    shutil.rmtree(work, ignore_errors=True)
    here, of = work / "here", SMALL[name]
    here.mkdir(parents=True)
    shutil.copytree(inputs / "stopped" / name, here / of.out)
    words = of.again(inputs, here)
    statuses, said = _two([words, words], apart, here, inputs / "cache", work)
    problems = _judged(statuses, said, together=False) + differences(here / of.out, inputs / "expected" / name / of.out)
    outcome = "both, one after the other" if not any(statuses) else "one, and the other is refused"
    return {"command": f"{name} --resume", "kind": "one folder", "outcome": outcome, "problems": problems}


def _joined(share: float, seconds: dict[str, float], inputs: Path, work: Path) -> dict[str, Any]:
    """A training, a ``--resume`` of it in the middle, and a kill of the first: the lock goes with its process."""
    shutil.rmtree(work, ignore_errors=True)
    here, of = work / "here", SMALL["train"]
    here.mkdir(parents=True)
    first = Started(of.given(inputs), here, inputs / "cache", work / "0.txt")
    time.sleep(share * seconds["train"])
    status, said = run(["train", "--resume", of.out], here, inputs / "cache", work / "1.txt")
    problems = one_line(said, status) if first.alive() else []
    first.sends(signal.SIGKILL)
    first.wait()
    status, said = run(of.again(inputs, here), here, inputs / "cache", work / "2.txt")
    problems += [f"after the kill: {status}: {last_line(said)}"] if status else []
    problems += differences(here / of.out, inputs / "expected" / "train" / of.out)
    return {"command": "train --resume", "kind": "one folder", "outcome": "refused", "problems": problems}


def _nameless(inputs: Path, work: Path) -> dict[str, Any]:
    shutil.rmtree(work, ignore_errors=True)
    here, of = work / "here", SMALL["train"]
    here.mkdir(parents=True)
    words = of.given(inputs)[:-2]
    statuses, said = _two([words, words], 0.0, here, inputs / "cache", work)
    made = sorted((here / "runs").iterdir()) if (here / "runs").exists() else []
    problems = [f"status {status}: {last_line(w)}" for status, w in zip(statuses, said, strict=True) if status]
    problems += [] if len(made) == 2 else [f"{len(made)} folders"]
    for folder in made:
        problems += differences(folder, inputs / "expected" / "train" / of.out)
    return {"command": "train", "kind": "no folder named", "outcome": "two folders", "problems": problems}
