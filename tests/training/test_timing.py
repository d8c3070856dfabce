"""Where the time of a command goes."""

import itertools

import pytest

from fewstep.training import timing
from fewstep.training.timing import timed, watched


def test_what_is_done_within_something_else_counts_for_itself_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = itertools.count()  # one passes between two looks at the clock
    monkeypatch.setattr(timing.time, "perf_counter", lambda: float(next(seconds)))

    @timed("validation")
    def validate(fails: bool = False) -> None:
        if fails:
            raise ValueError("validation fails")

    validate()  # nobody watches
    with watched("start") as watch:
        with timed("training"):
            validate()
            with pytest.raises(ValueError, match="validation fails"):
                validate(fails=True)
        with timed("training"):
            pass
    assert watch.seconds == {"start": 3.0, "training": 4.0, "validation": 2.0}
    assert str(watch) == "9 s: training 4 s (44%), start 3 s (33%), validation 2 s (22%)"
    validate()
    assert sum(watch.seconds.values()) == 9.0
