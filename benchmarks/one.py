"""One case in a process of its own: ``python -m benchmarks.one CASE [--quick] [--threads N] [--memory-of NAME]``."""

import argparse
import json
from dataclasses import replace
from typing import Any

import torch

from benchmarks.cases import CASES, COMPILED, QUICK
from benchmarks.measure import Case, difference, matrix_rate, operations, peak_memory, quartiles, take_turns
from fewstep.training.device import keep_freed_memory


def main() -> None:
    """Print the result as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--memory-of", help="a contender whose peak memory to measure instead of all the times")
    options = parser.parse_args()
    print(json.dumps(measured(options.case, options.quick, options.threads, options.memory_of)))


def measured(name: str, quick: bool, threads: int | None = None, memory_of: str | None = None) -> dict[str, Any]:
    """The times of a case, or the peak memory of one of its contenders."""
    if threads:
        torch.set_num_threads(threads)
    case = (QUICK if quick else CASES)[name]()
    if quick and name not in COMPILED:
        case = replace(case, contenders=[c for c in case.contenders if "compiled" not in c.name])
    if memory_of:
        return _memory(case, memory_of)
    keep_freed_memory()  # the same allocator for every contender
    return _times(case, quick)


def _times(case: Case, quick: bool) -> dict[str, Any]:
    works = {contender.name: contender.build() for contender in case.contenders}
    if case.tolerance is not None:
        reference, *others = ((name, work()) for name, work in works.items())
        for name, found in others:
            off = difference(found or (), reference[1] or ())
            if not off <= case.tolerance:
                raise SystemExit(f"{case.name}: {name} is off by {off:.1e} from {reference[0]}: not the same work.")
    times = take_turns(works, 1 if quick else case.rounds)
    result = {"name": case.name, "what": case.what, "memory": case.memory, "notes": case.notes, "contenders": []}
    for name, taken in times.items():
        result["contenders"].append({"name": name, "seconds": quartiles(taken), "rounds": len(taken)})
    if case.flops is not None:
        result["flops"] = operations(works[case.flops])
        result["flops_a_second"] = matrix_rate(size=256 if quick else 2048)
    return result


def _memory(case: Case, name: str) -> dict[str, Any]:
    (contender,) = (contender for contender in case.contenders if contender.name == name)
    return {"peak_mb": peak_memory(contender.build())}


if __name__ == "__main__":
    main()
