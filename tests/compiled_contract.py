"""Compiled against eager meta-gradients: ``python tests/compiled_contract.py BACKEND CASE [CASE ...]``.

A script of its own because pytest here checks shapes at run time, through an import hook that dynamo cannot trace.
Exits with status 1, and a line for each case that fails, when a case does not trace into one graph or its compiled
objective or a meta-gradient differs from eager.
"""

import sys
from functools import partial

import torch
from cases import CASES, Case
from torch._dynamo.utils import counters

from fewstep.core import Differentiate, generator
from fewstep.training.compiling import compiled


def differences(case: Case, backend: str) -> dict[str, float]:
    """The largest difference in the objective and in each meta-gradient, relative to the eager one's largest entry."""
    method, tasks = case.build()
    draws = method.draws(tasks, generator(0, 0, "noise"))
    names = [name for name, _ in method.learner.named_parameters()]
    eager, traced = Differentiate(method), Differentiate(method, transform=partial(compiled, backend=backend))
    torch._dynamo.reset()
    counters.clear()
    apart = dict.fromkeys(("objective", *names), 0.0)
    for progress in (method.learner.progress.item(), 0.5):  # which is read at every step, and no constant of the graph
        method.learner.progress.fill_(progress)
        expected, found = (step(tasks, draws) for step in (eager, traced))
        pairs = zip((expected.objective, *expected.gradients), (found.objective, *found.gradients), strict=True)
        for name, (a, b) in zip(apart, pairs, strict=True):
            apart[name] += ((b - a).abs().max() / (a.abs().max() + 1e-3)).item()
    # Torch that does not trace the derivative breaks once, before it.
    untraced = 0 if hasattr(torch._dynamo.config, "trace_autograd_ops") else 1
    return apart | {"graph breaks": max(0, sum(counters["graph_break"].values()) - untraced)}


def main(backend: str, *names: str) -> int:
    """Check the named cases; the number that failed."""
    torch.set_num_threads(1)
    cases = {case.name: case for case in CASES}
    failures = 0
    for name in names:
        try:
            wrong = {key: value for key, value in differences(cases[name], backend).items() if not value < 1e-9}
            message = f"compiled and eager differ (relative): {wrong}" if wrong else ""
        except Exception as error:  # whatever the compiler raises is this case's result; the others still run
            message = f"{type(error).__name__}: {error}"
        failures += bool(message)
        print(f"{name} [{backend}]: {message or 'agrees'}", flush=True)
    return failures


if __name__ == "__main__":
    sys.exit(1 if main(*sys.argv[1:]) else 0)
