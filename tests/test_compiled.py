"""``torch.compile(fullgraph=True)`` gives the same objectives and meta-gradients: see ``compiled_contract.py``."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cases import CASES

SCRIPT = Path(__file__).with_name("compiled_contract.py")


def check(backend: str, *cases: str) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT), backend, *cases]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=1200)
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr[-2000:]}"


KINDS = (
    *("leo", "leo-network-mlp", "residual-prototypes", "cnp", "platipus-mlp-norm", "cavia-mlp-norm"),  # starts
    *("snail-mlp-norm", "llama-mlp-norm"),  # a memory, and layers that are tapped
    *("meta-lstm-mlp", "maml-plus-plus-mlp-norm", "bayesian-maml-mlp-norm"),  # rules, one for each step, of particles
    *("imaml-mlp", "reptile-mlp"),  # meta-gradients
)
"""A case of every kind of part, whose derivative is in the graph; generated code, which is slow, has all the cases."""


def test_a_case_of_every_kind_of_part_traces_into_one_graph() -> None:
    check("eager", *KINDS)


@pytest.mark.slow
@pytest.mark.parametrize("case", [case.name for case in CASES])
def test_generated_code_agrees(case: str) -> None:
    compiler = os.environ.get("CXX") or "g++"
    if not (shutil.which(compiler) or shutil.which("clang++")):
        pytest.skip(f"inductor needs a C++ compiler, and {compiler} is not here; set CXX")
    check("inductor", case)
