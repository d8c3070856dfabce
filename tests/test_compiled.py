"""``torch.compile(fullgraph=True)`` gives the same objectives and meta-gradients: see ``compiled_contract.py``."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cases import CASES, algorithm

SCRIPT = Path(__file__).with_name("compiled_contract.py")


def check(backend: str, *cases: str) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT), backend, *cases]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=1200)
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr[-2000:]}"


def test_the_backward_pass_of_leo_and_of_a_convolution_trace_too() -> None:
    check("aot_eager", "leo", "maml-conv")


def test_one_case_of_each_other_algorithm_traces_into_one_graph() -> None:
    """Those aside whose parts are those of another: they are generated code's alone."""
    alike = {
        "leo",
        "maml",
        "anil",
        "meta-sgd",
        "protonet",
        "ppa",
        "gaussian-prior",
        "lstm-backprop",
        "t-net",
    }  # of MAML, Meta-Curvature, Proto-MAML, Meta-LSTM
    cases = {algorithm(case.name): case.name for case in reversed(CASES)}
    assert alike <= cases.keys()
    check("eager", *(case for name, case in cases.items() if name not in alike))


@pytest.mark.slow
@pytest.mark.parametrize("case", [case.name for case in CASES])
def test_generated_code_agrees(case: str) -> None:
    compiler = os.environ.get("CXX") or "g++"
    if not (shutil.which(compiler) or shutil.which("clang++")):
        pytest.skip(f"inductor needs a C++ compiler, and {compiler} is not here; set CXX")
    check("inductor", case)
