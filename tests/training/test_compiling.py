"""Falling back from the compiler; that compiled numbers are right is shown by ``test_compiled.py``."""

import logging

import pytest

from fewstep.training import Training
from fewstep.training.compiling import or_eager


def test_a_failing_compiler_is_told_once_and_replaced(caplog: pytest.LogCaptureFixture) -> None:
    calls: list[str] = []

    def fast(x: int) -> int:
        calls.append("fast")
        raise RuntimeError("no C++ compiler found\n  many lines of trace")

    step = or_eager(fast, lambda x: 2 * x)
    with caplog.at_level(logging.WARNING):
        assert [step(1), step(2), step(3)] == [2, 4, 6]
    assert calls == ["fast"]
    (record,) = caplog.records
    assert "no C++ compiler found" in record.getMessage()
    assert "trace" not in record.getMessage()


def test_a_mistake_in_the_arguments_is_not_taken_for_the_compilers() -> None:
    def fast(x: int) -> int:
        raise RuntimeError("wrapped in the compiler's words")

    def eager(x: int) -> int:
        raise ValueError("wrong shape")

    with pytest.raises(ValueError, match="wrong shape"):
        or_eager(fast, eager)(1)


def test_a_compiler_that_works_is_kept() -> None:
    assert [or_eager(lambda x: x, lambda x: -x)(x) for x in (1, 2)] == [1, 2]


def test_auto_compiles_long_trainings_only() -> None:
    assert Training(steps=5000).compiles()
    assert not Training(steps=4999).compiles()
    assert not Training(steps=5000, recompute=True).compiles()
    assert Training(steps=1, compile="on").compiles()
    assert not Training(steps=10**6, compile="off").compiles()
    with pytest.raises(ValueError, match="exclude each other"):
        Training(steps=1, compile="on", recompute=True)
