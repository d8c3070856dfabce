"""The study that all processes of a search share: opening and joining it, and the queue of its trials.

Configuration i of a search is a function of (seed, i) alone, so it does not matter which process runs it, when, or how
often it was killed. Optuna keeps what the processes must agree on: which are waiting, running, pruned and complete.
"""

from __future__ import annotations

import inspect
import json
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import optuna
import sqlalchemy
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from fewstep.experiments.search.halving import Halving
from fewstep.recipes import Config, Range, differences, dotted
from fewstep.training.stopping import patiently

_Storage = TypeVar("_Storage", bound=optuna.storages.BaseStorage)

HEARTBEAT, GRACE = 10, 30
"""Seconds between signs of life of a running trial, and without a new one until it counts as killed."""

RETRIES = 2
"""How often a killed trial is continued before the search does without it."""

PATIENCE = 10.0
"""Seconds without a new trial after which a process that was filling the study counts as killed."""


@dataclass(frozen=True)
class Plan:
    """What every process of a search knows.

    Attributes:
        config: what the ranges' settings are changed in, with the threads of each trial.
        space: what is drawn.
        seed: of the draws.
        storage: URL of the database or the journal.
        name: of the study.
        out: gets a run folder for each trial.
        prune: stop trials by :class:`~fewstep.experiments.search.halving.Halving`.
        higher_is_better: accuracy rather than error.
        heartbeat: seconds between signs of life.
        grace: seconds without one until a trial counts as killed.
        features: what the data says of stored features, so that others at the same place are not taken for them.
        data: fingerprints of the splits, likewise of all data.
    """

    config: Config
    space: tuple[Range, ...]
    seed: int
    storage: str
    name: str
    out: Path
    prune: bool
    higher_is_better: bool
    heartbeat: int
    grace: int
    features: str = ""
    data: Mapping[str, str] = field(default_factory=dict)

    def draw(self, index: int) -> dict[str, float]:
        """The settings of configuration number ``index``: the same in every process."""
        shares = np.random.default_rng(np.random.SeedSequence([self.seed, index])).random(len(self.space))
        # Rounding must not lead out of an interval whose ends the storage enforces.
        return {
            range.setting: min(max(range.at(float(share)), range.low), range.high)
            for range, share in zip(self.space, shares, strict=True)
        }

    @property
    def halving(self) -> Halving | None:
        """What stops trials, if something does."""
        training = self.config.training
        return Halving(training.steps, training.validate_every) if self.prune else None

    def folder(self, index: int) -> Path:
        """The run folder of a configuration."""
        return self.out / "trials" / f"{index:03d}"

    @property
    def identity(self) -> dict[str, Any]:
        """What all processes of a study must have in common, in JSON's types; what is drawn has no value in it."""
        ranges = {range.setting: str(range).removeprefix(f"{range.setting} ") for range in self.space}
        exact = {range.setting: [range.low, range.high, range.log] for range in self.space}
        fixed = {n: value for n, value in dotted(self.config).items() if n not in ranges}
        # Threads and device are of it, for a run goes on to the same bits with the same ones alone.
        fixed |= {"--prune": self.prune, "features": self.features}
        fixed |= {f"{split} data": known for split, known in self.data.items()}
        return {"config": fixed, "space": ranges, "exact": exact, "seed": self.seed}


@contextmanager
def quiet() -> Iterator[None]:
    """Optuna without its log of every trial and its warnings about experimental parts."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)


@contextmanager
def in_one_line(storage: str) -> Iterator[None]:
    """What a database that cannot be read or written comes to: one error of one line.

    Raises:
        OSError: for all that Optuna and SQLAlchemy raise then.
    """
    try:
        yield
    except (*OF_STORAGE, AssertionError) as error:
        # An assertion of Optuna's fails where a trial's end cannot be written.
        cause = error.__context__ if isinstance(error, AssertionError) else error
        if not isinstance(cause, OF_STORAGE):
            raise
        while cause.__cause__ is not None:
            cause = cause.__cause__
        why = str(cause).splitlines()[0] if str(cause) else type(cause).__name__
        raise OSError(
            f"the study's storage {without_password(storage)} cannot be read or written ({why}): when it can, give the "
            "same command again"
        ) from error


OF_STORAGE = (optuna.exceptions.StorageInternalError, sqlalchemy.exc.SQLAlchemyError)
"""What Optuna and SQLAlchemy raise when a database cannot be read or written."""


def without_password(storage: str) -> str:
    """The URL as it may be written down.

    Raises:
        ValueError: when it is none.
    """
    try:
        return sqlalchemy.make_url(storage).render_as_string(hide_password=True)
    except sqlalchemy.exc.ArgumentError as error:
        raise _cannot_be_opened(storage, error) from error


def _cannot_be_opened(storage: str, error: Exception) -> ValueError:
    why = str(error).splitlines()[0] if str(error) else type(error).__name__
    if isinstance(error, ImportError) and storage.startswith("postgresql"):
        why += "; pip install 'fewstep[postgresql]'"
    return ValueError(
        f"the study's storage {storage.rpartition('@')[2]} cannot be opened: {why}. Expected is a URL such as "
        "sqlite:///study.db, postgresql://user@host/name or, in a folder that machines share, journal:///study.journal."
    )


def storage_in(out: Path, shared: bool) -> str:
    """The storage of a search in its own folder: the one that is there, or a new one.

    Args:
        out: the folder.
        shared: processes of several machines will write to it, which SQLite does not bear and a journal does.
    """
    journal = out / "study.journal"
    if journal.exists() or (shared and not (out / "study.db").exists()):
        return f"journal:///{journal}"
    return f"sqlite:///{out / 'study.db'}"


def served(storage: str) -> bool:
    """Whether a storage is a server's, which may be restarted."""
    return sqlalchemy.make_url(storage).get_backend_name() not in ("sqlite", "journal")


def open_storage(plan: Plan) -> optuna.storages.BaseStorage:
    """The storage of a study, whose tables or file are made where there are none.

    Raises:
        ValueError: when it cannot be opened, with the reason.
    """
    try:
        url = sqlalchemy.make_url(plan.storage)
        if url.drivername == "journal":
            return _uninterrupted(_journal(Path(url.database or "")))
        if url.drivername == "postgresql" and find_spec("psycopg"):
            url = url.set(drivername="postgresql+psycopg")  # which older versions of SQLAlchemy do not take by default
        with patiently():
            return _uninterrupted(_database(url))
    except (sqlalchemy.exc.SQLAlchemyError, ImportError, RuntimeError, OSError, ValueError) as error:
        raise _cannot_be_opened(plan.storage, error) from error


def _uninterrupted(storage: _Storage) -> _Storage:
    """Have every operation of a storage end before a signal is minded.

    One that is left in the middle may leave the database or the journal locked, for this process too, which then waits
    for itself.
    """
    for name, method in inspect.getmembers(storage, inspect.ismethod):
        if not name.startswith("__"):
            setattr(storage, name, patiently()(method))
    return storage


def _journal(file: Path) -> optuna.storages.JournalStorage:
    """A file to whose end every process writes what it does, under a lock that network file systems know too."""
    if file.exists():
        with file.open("rb") as there:
            if there.read(1) not in (b"", b"{"):  # Optuna would append to anything
                raise ValueError("it is not a journal")
    return optuna.storages.JournalStorage(JournalFileBackend(str(file)))


def _database(url: sqlalchemy.URL) -> optuna.storages.RDBStorage:
    lite = url.get_backend_name() == "sqlite"
    options = {"connect_args": {"timeout": 60}} if lite else {"pool_pre_ping": True}
    for attempt in range(10):
        try:
            storage = optuna.storages.RDBStorage(url.render_as_string(hide_password=False), engine_kwargs=options)
            break
        except (sqlalchemy.exc.SQLAlchemyError, RuntimeError) as error:
            # Two processes that make the tables at once: one of them finds half of the other's.
            race = isinstance(error, sqlalchemy.exc.IntegrityError) or "already exists" in str(error)
            if not race or attempt == 9:
                raise
            time.sleep(0.3)
    if lite:
        _take_turns(storage.engine)
    return storage


def _take_turns(engine: sqlalchemy.Engine) -> None:
    """Have SQLite's transactions lock the database at their beginning.

    By default one that reads first and writes then locks at the write: two processes that look for the next waiting
    trial at the same time would both take it (SQLite knows no SELECT FOR UPDATE).
    """

    @sqlalchemy.event.listens_for(engine, "connect")
    def connect(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # the driver opens no transactions of its own

    @sqlalchemy.event.listens_for(engine, "begin")
    def begin(connection: sqlalchemy.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    engine.dispose()  # connections that were made without the first of these


def load(plan: Plan) -> optuna.Study:
    """The study of a search, as a worker sees it."""
    pruner = plan.halving or optuna.pruners.NopPruner()
    # What the sampler would draw is never used: every trial comes from the queue with its settings.
    sampler = optuna.samplers.RandomSampler(seed=0)
    return optuna.load_study(study_name=plan.name, storage=open_storage(plan), sampler=sampler, pruner=pruner)


def join(plan: Plan, trials: int) -> optuna.Study:
    """Create the study or join it, and see that its queue has had ``trials`` configurations.

    Returns:
        The study; what an earlier process left half done is waiting again.

    Raises:
        ValueError: when the storage cannot be opened, or holds another search by this name.
    """
    storage = open_storage(plan)
    try:
        study = optuna.create_study(
            storage=storage, study_name=plan.name, direction="maximize" if plan.higher_is_better else "minimize"
        )
        study.set_user_attr("fewstep", plan.identity)
    except optuna.exceptions.DuplicatedStudyError:
        study = load(plan)
        _check(_settled(study, plan), plan)
    enqueue(study, plan, trials)
    repair(study)
    return study


def _settled(study: optuna.Study, plan: Plan) -> Mapping[str, Any]:
    """What the study was made with, once the process that made it has filled it or has been seen to be gone."""
    seen, since = -1, time.monotonic()
    while "filled" not in (attributes := study.user_attrs):
        number = len(study.get_trials(deepcopy=False))
        if number != seen:
            seen, since = number, time.monotonic()
        if time.monotonic() - since > PATIENCE:
            if "fewstep" not in attributes:
                if number:
                    raise ValueError(
                        f"the study {plan.name!r} in {without_password(plan.storage)} was not made by `fewstep "
                        "search`: give another --name."
                    )
                study.set_user_attr("fewstep", plan.identity)
            break
        time.sleep(0.2)
    attribute: Mapping[str, Any] = study.user_attrs["fewstep"]
    return attribute


def _check(kept: Mapping[str, Any], plan: Plan) -> None:
    own = json.loads(json.dumps(plan.identity))
    for split in plan.data:  # which studies of old do not know
        if f"{split} data" not in kept["config"]:
            del own["config"][f"{split} data"]
    there, here = ({**one["config"], **one["space"], "the search's seed": one["seed"]} for one in (kept, own))
    last_digits = "the ranges differ in their last digits" if kept["exact"] != own["exact"] else ""
    if others := differences(there, here) or last_digits:
        raise ValueError(
            f"the study {plan.name!r} in {without_password(plan.storage)} is of another search ({others}): "
            "give the same recipe, options and seed to continue it, or another --out or --name."
        )


def enqueue(study: optuna.Study, plan: Plan, trials: int) -> None:
    """Add the configurations up to number ``trials`` that have never been in the queue."""
    if study.user_attrs.get("filled", 0) >= trials:
        return
    there = {trial.user_attrs.get("index") for trial in study.get_trials(deepcopy=False)}
    for index in range(trials):
        if index not in there:
            study.enqueue_trial(plan.draw(index), user_attrs={"index": index})
    study.set_user_attr("filled", trials)


def by_index(trials: Sequence[FrozenTrial]) -> dict[int, list[FrozenTrial]]:
    """The attempts at each configuration, oldest first."""
    attempts: dict[int, list[FrozenTrial]] = {}
    for trial in sorted(trials, key=lambda trial: trial.number):
        if "index" in trial.user_attrs:
            attempts.setdefault(trial.user_attrs["index"], []).append(trial)
    return dict(sorted(attempts.items()))


_RANK = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING, TrialState.WAITING, TrialState.FAIL)


def deciding(attempts: Sequence[FrozenTrial]) -> FrozenTrial:
    """The attempt that says what became of a configuration."""
    return min(attempts, key=lambda trial: (_RANK.index(trial.state), -trial.number))


def killed(trial: FrozenTrial) -> bool:
    """Whether an attempt ended without a word: neither by an error nor because the search was stopped."""
    return trial.state == TrialState.FAIL and not {"reason", "stopped"} & trial.user_attrs.keys()


def requeue(study: optuna.Study, trial: FrozenTrial, *, always: bool = False) -> None:
    """Have a trial that was stopped or killed go on later; one that was killed too often, only if ``always``."""
    index = trial.user_attrs.get("index")
    if index is None:
        return
    attempts = by_index(study.get_trials(deepcopy=False))[index]
    if deciding(attempts).state != TrialState.FAIL or "reason" in deciding(attempts).user_attrs:
        return
    if not always and sum(map(killed, attempts)) > RETRIES:
        return
    study.add_trial(
        optuna.create_trial(
            state=TrialState.WAITING,
            params=trial.params,
            distributions=trial.distributions,
            user_attrs={"index": index},
            system_attrs={"fixed_params": trial.system_attrs["fixed_params"]},
            # The pruner compares with these, and the continued run does not validate there again.
            intermediate_values=trial.intermediate_values,
        )
    )


def repair(study: optuna.Study) -> None:
    """Have everything go on that was given up or got lost, as when a process is killed while it handles a kill."""
    for attempts in by_index(study.get_trials(deepcopy=False)).values():
        if deciding(attempts).state == TrialState.FAIL:
            requeue(study, attempts[-1], always=True)
