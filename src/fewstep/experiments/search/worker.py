"""A process of a search: takes configurations from the study's queue and trains them, until none is left."""

from __future__ import annotations

import math
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

import optuna
from optuna.trial import TrialState

from fewstep.data.storage.lock import LOCK, alone_after
from fewstep.experiments.run import Run
from fewstep.experiments.search.study import OF_STORAGE, Plan, by_index, in_one_line, load, quiet, requeue, served
from fewstep.experiments.workers import Tell, Throttle
from fewstep.recipes import with_settings
from fewstep.training import State

EVERY = 1.0
"""Seconds between looks at the rest of the search."""

OUTAGE = 300.0
"""Seconds that a database's server may be away."""


class NotMyTrial(Exception):
    """A trial that is nobody's: the queue was empty, or another process has the configuration."""


def work(plan: Plan, tick: Callable[[optuna.Study], None] = lambda _: None) -> None:
    """Train configurations until the study has no waiting and no running trial.

    What the machine refuses is no fault of a configuration: a full disk ends the work, and its trial waits. A database
    that is being restarted is waited for; the trial then goes on from its checkpoint.

    Args:
        plan: of the search.
        tick: called about every second, with the study.

    Raises:
        KeyboardInterrupt: when it is stopped; the trial that it was at waits to be continued.
        OSError: when something cannot be read or written; likewise.
    """
    with quiet(), in_one_line(plan.storage):
        study = load(plan)
        ours: list[int] = []
        signs: dict[int, tuple[int | None, float]] = {}
        reached = time.monotonic()
        while True:
            try:
                _give_back(study, ours)
                reached = time.monotonic()
                tick(study)
                trials = study.get_trials(deepcopy=False, states=(TrialState.WAITING, TrialState.RUNNING))
                if any(trial.state == TrialState.WAITING for trial in trials):
                    signs.clear()
                    _one(study, plan, tick, ours)
                elif trials:  # of other processes, which may have been killed
                    _fail_dead(study, plan, signs)
                    time.sleep(EVERY)
                else:
                    return
            except OF_STORAGE:
                signs.clear()  # nobody could give one
                if not served(plan.storage) or time.monotonic() - reached > OUTAGE:
                    raise
                time.sleep(EVERY)


def _one(study: optuna.Study, plan: Plan, tick: Callable[[optuna.Study], None], ours: list[int]) -> None:
    refused: list[Exception] = []

    def objective(trial: optuna.Trial) -> float:
        ours.append(trial.number)
        with _alive(trial, plan.heartbeat):
            try:
                return train(trial, plan, lambda: tick(study))
            except (OSError, *OF_STORAGE) as error:
                refused.append(error)
                raise

    try:
        study.optimize(objective, n_trials=1, catch=(Exception,))
    except KeyboardInterrupt:
        _give_back(study, ours)
        raise
    except (ValueError, optuna.exceptions.UpdateFinishedTrialError):
        # This process was suspended for so long that its trial was taken for dead and given to another.
        states = {trial.number: trial.state for trial in study.get_trials(deepcopy=False)}
        if not ours or states[ours[-1]] != TrialState.FAIL:
            raise
    if refused:
        if isinstance(refused[0], OSError):
            _give_back(study, ours)
        raise refused[0]
    ours.clear()


def _give_back(study: optuna.Study, numbers: list[int]) -> None:
    """Have trials wait that this process has begun and not ended."""
    for number in numbers:
        _fail(study, number)
        requeue(study, study.get_trials(deepcopy=False)[number], always=True)
    numbers.clear()


def _fail(study: optuna.Study, number: int) -> None:
    with suppress(ValueError, optuna.exceptions.UpdateFinishedTrialError):  # it has ended
        study.tell(number, state=TrialState.FAIL)


@contextmanager
def _alive(trial: optuna.Trial, seconds: int) -> Iterator[None]:
    """Give signs of life of a trial. Optuna's own are of databases alone, and compare the clocks of machines."""
    over = threading.Event()

    def give() -> None:
        for sign in count(1):
            try:
                trial.set_user_attr("alive", sign)
            except (OSError, *OF_STORAGE):
                pass  # the trial itself will say so at its next word
            except optuna.exceptions.UpdateFinishedTrialError:
                return
            if over.wait(seconds):
                return

    thread = threading.Thread(target=give, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _fail_dead(study: optuna.Study, plan: Plan, signs: dict[int, tuple[int | None, float]]) -> None:
    """Have trials go on whose process has given no new sign of life for a while, by the clock of this one."""
    now = time.monotonic()
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        sign = trial.user_attrs.get("alive")
        last, since = signs.setdefault(trial.number, (sign, now))
        if sign != last:
            signs[trial.number] = sign, now
        elif now - since > plan.grace:
            _fail(study, trial.number)
            requeue(study, study.get_trials(deepcopy=False)[trial.number])


def train(trial: optuna.Trial, plan: Plan, tick: Callable[[], None]) -> float:
    """Train the configuration of a trial, from where its run folder stands.

    Returns:
        Its best validation score.

    Raises:
        TrialPruned: when it is worse than what others had reached by then.
        FloatingPointError: when its validation score is not a number.
        NotMyTrial: when there is nothing to train.
    """
    trial.set_user_attr("process", f"{platform.node()}:{os.getpid()}")
    index = trial.user_attrs.get("index")
    if index is None:
        raise NotMyTrial
    for other in by_index(trial.study.get_trials(deepcopy=False))[index]:
        done = other.state in (TrialState.COMPLETE, TrialState.PRUNED)
        if done or (other.state == TrialState.RUNNING and other.number < trial.number):
            trial.set_user_attr("stopped", True)
            raise NotMyTrial  # two processes put the configuration into the queue at the same time
    for range in plan.space:
        if range.whole:
            trial.suggest_int(range.setting, int(range.low), int(range.high), log=range.log)
        else:
            trial.suggest_float(range.setting, range.low, range.high, log=range.log)
    try:
        return _train(trial, plan, index, tick)
    except (optuna.TrialPruned, optuna.exceptions.UpdateFinishedTrialError):
        raise
    except (KeyboardInterrupt, OSError, *OF_STORAGE):
        with suppress(OSError, *OF_STORAGE):  # the disk may be full
            trial.set_user_attr("stopped", True)
        raise
    except Exception as error:
        trial.set_user_attr("reason", f"{type(error).__name__}: {error}")
        raise


def _describe(trial: optuna.Trial, state: State) -> None:
    with suppress(optuna.exceptions.UpdateFinishedTrialError):
        trial.set_user_attr("best_step", state.best_step)
        trial.set_user_attr("steps", state.step)
        trial.set_user_attr("seconds", round(state.seconds, 1))


def _train(trial: optuna.Trial, plan: Plan, index: int, tick: Callable[[], None]) -> float:
    every, due = plan.config.training.validate_every, Throttle(EVERY)
    latest: State | None = None
    reported = set(trial.study.get_trials(deepcopy=False)[trial.number].intermediate_values)

    def progress(state: State, _: dict[str, float]) -> None:
        nonlocal latest
        latest = state
        if due():
            tick()
        if state.step % every and not state.finished:
            return
        best = state.best
        assert best is not None  # it has just been validated
        if not math.isfinite(best):
            if state.step > every:
                raise FloatingPointError(f"the validation score is {best} after {state.step} meta-steps")
            return
        if state.step not in reported:
            trial.report(best, state.step)
        elif state.step < max(reported):
            return  # before it was killed, it went on from here
        if not state.finished and trial.should_prune():
            raise optuna.TrialPruned(f"{best:g} after {state.step} meta-steps")

    config, folder = with_settings(plan.config, plan.draw(index)), plan.folder(index)

    def go_on() -> State:
        return Run.continued(config, folder, lambda _: None).train(progress).state

    try:
        with alone_after(folder, tick):  # one that was suspended and is taken for dead
            begun = [path for path in folder.iterdir() if path.name != LOCK]
            try:
                latest = go_on()
            except ValueError:
                if latest is not None or not begun:
                    raise
                _set_aside(folder)  # what was damaged meanwhile; anew it comes to the same bits
                latest = go_on()
    finally:
        if latest is not None:
            _describe(trial, latest)
    if latest.best is None or not math.isfinite(latest.best):
        raise FloatingPointError(f"the validation score is {latest.best} after {latest.step} meta-steps")
    return latest.best


def _set_aside(folder: Path) -> None:
    """Move what is in the folder of a trial, but for its lock, to another one beside it."""
    aside = next(place for n in count(1) if not (place := folder.with_name(f"{folder.name}-damaged-{n}")).exists())
    aside.mkdir()
    for path in list(folder.iterdir()):
        if path.name != LOCK:
            path.rename(aside / path.name)


def serve(plan: Plan, _: Tell) -> None:
    """A worker as a job: :func:`work`."""
    work(plan)
