"""Threads that adapt at once, each with a copy of a method: nothing that copies share is written to."""

import copy
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from cases import CASES

from fewstep.core import Differentiate, Loop, Vmap, generator

SOME = ("maml-conv", "leo", "leo-network-mixture", "bayesian-maml-mlp-norm")


@pytest.mark.parametrize("case", [case for case in CASES if case.name in SOME], ids=lambda case: case.name)
def test_copies_of_a_method_are_for_as_many_threads(case) -> None:
    method, tasks = case.build()
    draws = method.draws(tasks, generator(0, 0, "noise"))
    expected = Differentiate(method, Vmap())(tasks, draws).gradients

    def found(i: int) -> list[list[torch.Tensor]]:
        own = copy.deepcopy(method)
        return [Differentiate(own, (Vmap(), Loop())[i % 2])(tasks, draws).gradients for _ in range(3)]

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(4) as threads:
            gradients = [each for of_thread in threads.map(found, range(4)) for each in of_thread]
    finally:
        sys.setswitchinterval(before)
    for each in gradients:
        torch.testing.assert_close(each, expected, rtol=1e-9, atol=1e-12)
