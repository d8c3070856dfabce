"""A signal ends a training between two steps, with a checkpoint from which it goes on to the same bits."""

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import resume_driver
import torch
from safetensors.torch import load_file

from fewstep.core import Method
from fewstep.experiments.workers import Job, Tell, run_all
from fewstep.training import Stopped, Trainer, stoppable
from fewstep.training.checkpoint import LAST, read_state
from fewstep.training.stopping import SIGNALS, poll

pytestmark = pytest.mark.usefixtures("interruptible")

SHORT = replace(resume_driver.OPTIONS, steps=12, tasks=2, validate_every=4, validation_tasks=2, patience=0, log_every=5)


def trainer(folder: Path) -> Trainer:
    return resume_driver.trainer(folder, SHORT)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reference")
    trainer(folder).run()
    return folder


def assert_goes_on_to_the_same_end(stopped: Path, reference: Path) -> None:
    trainer(stopped).run()
    for name in ("last.safetensors", "best.safetensors"):
        ours, theirs = load_file(stopped / name), load_file(reference / name)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours), name
    ours, theirs = read_state(stopped / LAST), read_state(reference / LAST)
    ours.seconds = theirs.seconds = 0.0  # wall time is the only difference there may be
    assert ours == theirs
    assert (stopped / "metrics.csv").read_bytes() == (reference / "metrics.csv").read_bytes()


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(
    ("number", "step"),
    [(signal.SIGINT, 0), (signal.SIGTERM, 5), (signal.SIGHUP, 7), (signal.SIGUSR1, 10)],
    ids=["INT", "TERM", "HUP", "USR1"],
)  # the first step, and others between checkpoints, logs and validations
def test_stopped_in_a_step(number: signal.Signals, step: int, reference: Path, tmp_path: Path) -> None:
    stopped = trainer(tmp_path)
    inputs = stopped.inputs

    def sending(at: int) -> object:
        if at == step:
            send(number)
        return inputs(at)

    stopped.inputs = sending  # type: ignore[method-assign,assignment]
    before = [signal.getsignal(one) for one in SIGNALS]
    with pytest.raises(Stopped) as stop, stoppable():
        stopped.run()
    assert [signal.getsignal(one) for one in SIGNALS] == before
    assert (stop.value.signal, stop.value.status) == (number, 128 + number)
    assert read_state(tmp_path / LAST).step == step + 1, "the step that it was at is its last"
    assert_goes_on_to_the_same_end(tmp_path, reference)


def test_stopped_in_a_validation(reference: Path, tmp_path: Path) -> None:
    stopped, after = trainer(tmp_path), 8
    validate = stopped.validate

    def sending(method: Method) -> float:
        if stopped.state.step == after:
            send(signal.SIGTERM)
            poll()  # as between two batches of tasks
        return validate(method)

    stopped.validate = sending
    with pytest.raises(Stopped), stoppable():
        stopped.run()
    state = read_state(tmp_path / LAST)
    assert (state.step, state.due) == (after, True)
    told: list[int] = []
    again = trainer(tmp_path)
    again.validate = sending
    with pytest.raises(Stopped), stoppable():
        again.run(lambda state, _: told.append(state.step))
    assert told == [], "stopped in it once more"
    assert_goes_on_to_the_same_end(tmp_path, reference)


def test_a_signal_in_the_last_step(reference: Path, tmp_path: Path) -> None:
    with pytest.raises(Stopped), stoppable():
        trainer(tmp_path).run(lambda state, _: send(signal.SIGTERM) if state.finished else None)
    assert read_state(tmp_path / LAST).finished
    assert_goes_on_to_the_same_end(tmp_path, reference)


def trains(folder: Path, tell: Tell) -> None:
    trainer(folder).run(lambda state, _: tell(state.step))


def test_worker_processes_are_stopped_too(reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def told(_: int, step: int) -> None:
        if step == 3:
            send(signal.SIGUSR1)

    folders = [tmp_path / "one", tmp_path / "two"]
    here = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", f"{here}{os.pathsep}{Path(__file__).parent}")
    with pytest.raises(Stopped) as stop, stoppable():
        run_all([Job(folder.name, trains, (folder,)) for folder in folders], workers=2, on_message=told)
    assert stop.value.signal == signal.SIGUSR1
    begun = [folder for folder in folders if (folder / LAST).exists()]
    assert begun
    assert any(read_state(folder / LAST).step % 5 for folder in begun), "the checkpoints are of every fifth step"
    for folder in begun:
        assert_goes_on_to_the_same_end(folder, reference)


@pytest.mark.parametrize(("pause", "ends"), [(0.0, 0), (1.2, -signal.SIGTERM)], ids=["echo", "second"])
def test_a_second_signal_ends_at_once(pause: float, ends: int) -> None:
    """But for one that comes with the first, from a terminal and from a launcher that passes it on."""
    code = (
        "import os, time\nfrom fewstep.training.stopping import *\nfrom fewstep.training.stopping import patiently\n"
        "try:\n    with stoppable(), patiently():\n"
        f"        os.kill(os.getpid(), 15); time.sleep({pause}); os.kill(os.getpid(), 15)\n"
        "        print('still there', flush=True)\n"
        "except Stopped as stop:\n    print(stop.status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == ends, done.stderr
    assert done.stdout.split() == ([] if ends else ["still", "there", "143"])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a process cannot be forked here")
def test_a_forked_process_has_been_asked_nothing_and_minds_what_comes() -> None:
    code = (
        "import os, signal\nfrom fewstep.training.stopping import *\n"
        "from fewstep.training.stopping import asked, patiently\n"
        "try:\n    with stoppable(), patiently():\n"
        "        os.kill(os.getpid(), 15); child = os.fork()\n"
        "        if not child:\n"
        "            before = asked()\n"
        "            try:\n                os.kill(os.getpid(), signal.SIGUSR1); os._exit(1)\n"
        "            except Stopped as stop:\n                os._exit(2 if before else stop.status)\n"
        "        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)\n"
        "except Stopped as stop:\n    print(stop.status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["138", "143"], done.stderr


def test_nothing_is_changed_about_signals_unasked_or_beside_the_main_thread(tmp_path: Path) -> None:
    before = [signal.getsignal(one) for one in SIGNALS]
    seen: list[list[object]] = []

    def look(*_: object) -> None:
        seen.append([signal.getsignal(one) for one in SIGNALS])

    def beside() -> None:
        with stoppable():
            look()
            one = trainer(tmp_path / "beside")
            one.advance()
            look()

    thread = threading.Thread(target=beside)
    thread.start()
    thread.join()
    unasked: Trainer = trainer(tmp_path / "unasked")
    unasked.run(lambda *_: look() if unasked.state.step == 1 else None)
    assert len(seen) == 3
    assert all(one == before for one in seen)


def test_what_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        with stoppable():
            send(signal.SIGUSR1)
        assert signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_signal_that_python_does_not_let_out_comes_again() -> None:
    """As in a callback of the garbage collector, whose exceptions are printed and go on."""

    class Last:
        def __del__(self) -> None:
            send(signal.SIGUSR1)
            time.sleep(0.01)  # here it is raised, and lost

    def lose() -> None:
        Last()
        time.sleep(5)
        raise AssertionError("it was lost")

    told: list[str] = []
    with pytest.raises(Stopped), stoppable(told.append):
        lose()
    assert told == ["SIGUSR1"]
