"""A campaign that kills, stops, damages and crowds the commands, and counts what is lost. Outside CI; needs Linux.

    python tests/campaigns/reliability.py kills --out campaign --count 100     # resumable: the same command goes on
    python tests/campaigns/reliability.py all --out campaign --jobs 2

``campaign/PART.jsonl`` gets a line a case as it ends, and ``campaign/counts.json`` the counts. A case with a problem
keeps its folder in ``campaign/work``. Folders that are full or cannot be written are mounted, which takes root.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import damage
import folders
import kills
import threads
from processes import load_everything, run
from same import differences
from small import NETWORK, OTHER_RUN, RUN, SMALL, make_data

Cases = dict[str, Callable[[Path], dict[str, Any]]]
"""What is done in a folder of its own, by name; it gives a line with ``problems``."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=[*PARTS, "all", "counts"])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=100, help="kills; stops are as many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="cases at once")
    parser.add_argument("--only", default="", help="cases whose name has this in it")
    given = parser.parse_args()
    out = given.out.resolve()
    inputs = out / "inputs"
    load_everything()
    seconds = prepared(inputs)
    load_everything(json.loads((inputs / "modules.json").read_text()))
    for part in PARTS if given.part == "all" else [given.part] if given.part in PARTS else []:
        cases = PARTS[part](inputs, seconds, given)
        done = {line["name"] for line in lines(out / f"{part}.jsonl")}
        left = [name for name in cases if name not in done and given.only in name]
        print(f"{part}: {len(left)} of {len(cases)} cases to go", flush=True)
        at_once(left, cases, out, part, given.jobs)
    (out / "counts.json").write_text(json.dumps(counts(out), indent=2) + "\n")
    print((out / "counts.json").read_text())


def prepared(inputs: Path) -> dict[str, float]:
    """The data, two runs, a pre-training, and what every command comes to alone, some twice; how long each takes."""
    kept = inputs / "seconds.json"
    if kept.exists():
        known: dict[str, float] = json.loads(kept.read_text())
        return known
    shutil.rmtree(inputs, ignore_errors=True)
    inputs.mkdir(parents=True)
    make_data(inputs)
    cache = inputs / "cache"
    for name, of, more in ((NETWORK, "pretrain", []), (RUN, "train", []), (OTHER_RUN, "train", ["--seed", "1"])):
        succeed([*SMALL[of].given(inputs)[:-1], str(inputs / name), *more], inputs, cache)
    seconds, modules = {}, dict[str, None]()
    os.environ["FEWSTEP_MODULES"] = str(inputs / ".modules")
    for name, of in SMALL.items():
        for place in ("expected", "again") if name in ("train", "pretrain", "search") else ("expected",):
            here = inputs / place / name
            here.mkdir(parents=True)
            began = time.monotonic()
            succeed(of.given(inputs), here, inputs / "a cache" if of.fresh else cache, of.ranks)
            seconds[name] = time.monotonic() - began
            found = [] if of.ranks else json.loads((inputs / ".modules").read_text())
            modules |= dict.fromkeys(found)
            load_everything(found)
            shutil.rmtree(inputs / "a cache", ignore_errors=True)
        twice = inputs / "again" / name / of.out
        if twice.exists() and (others := differences(twice, inputs / "expected" / name / of.out)):
            raise SystemExit(f"{name} is not the same twice: {others}")
        print(f"{name}: {seconds[name]:.1f} s", flush=True)
    shutil.rmtree(inputs / "again")
    del os.environ["FEWSTEP_MODULES"]
    (inputs / "modules.json").write_text(json.dumps(list(modules)))
    kept.write_text(json.dumps(seconds))
    return seconds


def succeed(words: Sequence[str], here: Path, cache: Path, ranks: int = 0) -> None:
    """Run what must not fail."""
    status, said = run(words, here, cache, here / ".log", ranks)
    if status:
        raise SystemExit(f"{words} ended with {status}:\n{said}")
    (here / ".log").unlink()


def at_once(names: Sequence[str], cases: Cases, out: Path, part: str, jobs: int) -> None:
    """Run cases in some processes, each of which takes the next one."""
    context = multiprocessing.get_context("fork")
    following = context.Value("i", 0)

    def lane() -> None:
        while True:
            with following.get_lock():
                i, following.value = following.value, following.value + 1
            if i >= len(names):
                return
            name = names[i]
            work = out / "work" / part / f"{name}".replace("/", "_").replace(" ", "-")
            began = time.monotonic()
            try:
                line = cases[name](work)
            except Exception as error:
                line = {"problems": [f"the campaign itself: {type(error).__name__}: {error}"]}
            line = {"name": name, **line, "took": round(time.monotonic() - began, 1)}
            with (out / f"{part}.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")
            if line["problems"]:
                print(f"{part} {name}: {line['problems']}", flush=True)

    lanes = [context.Process(target=lane) for _ in range(jobs)]
    for one in lanes:
        one.start()
    for one in lanes:
        one.join()


def lines(file: Path) -> list[dict[str, Any]]:
    """What cases have come to."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def counts(out: Path) -> dict[str, Any]:
    """How many cases, by what they are of, and the problems."""
    found: dict[str, Any] = {}
    for part in PARTS:
        if there := lines(out / f"{part}.jsonl"):
            entry: dict[str, Any] = {
                "cases": len(there),
                "without a problem": sum(not one["problems"] for one in there),
            }
            for fact in ("command", "signal", "to", "stage", "in a write", "kind", "outcome"):
                if values := Counter(str(one[fact]) for one in there if one.get(fact)):
                    entry[fact] = dict(sorted(values.items()))
            for fact in ("kills", "parts left", "outlived", "calls", "wrong"):
                if any(fact in one for one in there):
                    entry[f"{fact}, in all"] = sum(one.get(fact, 0) for one in there)
            entry["problems"] = {one["name"]: one["problems"] for one in there if one["problems"]}
            found[part] = entry
    return found


def _kills(inputs: Path, seconds: dict[str, float], given: argparse.Namespace) -> Cases:
    return _disturbed(inputs, seconds, given, kill=True)


def _stops(inputs: Path, seconds: dict[str, float], given: argparse.Namespace) -> Cases:
    return _disturbed(inputs, seconds, given, kill=False)


def _disturbed(inputs: Path, seconds: dict[str, float], given: argparse.Namespace, kill: bool) -> Cases:
    drawn = [kills.drawn(given.seed, number, kill) for number in range(given.count)]
    return {
        f"{one.number} {one.of.name} {one.signal.name}": partial(kills.disturbed, one, inputs, seconds[one.of.name])
        for one in drawn
    }


PARTS: dict[str, Callable[[Path, dict[str, float], argparse.Namespace], Cases]] = {
    "kills": _kills,
    "stops": _stops,
    "damage": lambda inputs, seconds, given: damage.cases(inputs),
    "full": lambda inputs, seconds, given: folders.full(inputs),
    "readonly": lambda inputs, seconds, given: folders.locked(inputs),
    "shared": lambda inputs, seconds, given: folders.shared(inputs, seconds),
    "threads": lambda inputs, seconds, given: threads.cases(inputs, rounds=given.count),
}
"""The parts of the campaign: the cases of each."""


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
