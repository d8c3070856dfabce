"""Jobs in processes of their own: their results, their failures, and their end."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from multiprocessing import forkserver
from pathlib import Path

import pytest
import torch

from fewstep.experiments.workers import Job, Tell, run_all
from fewstep.training.stopping import Stopped, stoppable


def meets(me: int, other: int, folder: Path, tell: Tell) -> tuple[int, int]:
    (folder / str(me)).touch()
    until = time.monotonic() + 60
    while not (folder / str(other)).exists():
        assert time.monotonic() < until, f"{other} does not run beside {me}"
        time.sleep(0.01)
    tell(f"met {other}")
    return me, torch.get_num_threads()


def fails(error: type[Exception], tell: Tell) -> None:
    tell("failing")
    raise error("three blind mice")


def dies(status: int, _: Tell) -> None:
    if status < 0:
        os.kill(os.getpid(), -status)
    os._exit(status)


def dies_until(lives: int, folder: Path, tell: Tell) -> int:
    tell(time.sleep(0.3))
    life = len(list(folder.iterdir())) + 1
    (folder / str(life)).touch()
    if life < lives:
        os.kill(os.getpid(), signal.SIGKILL)
    return life


def says_its_id(tell: Tell) -> None:
    tell(os.getpid())
    time.sleep(300)


def test_jobs_run_beside_each_other_and_results_come_in_order(tmp_path: Path) -> None:
    messages: list[tuple[int, str]] = []
    results = run_all(
        [Job("one", meets, (0, 1, tmp_path)), Job("two", meets, (1, 0, tmp_path))],
        workers=2,
        threads=3,
        on_message=lambda i, message: messages.append((i, message)),
    )
    assert results == [(0, 3), (1, 3)], "on three threads each"
    assert sorted(messages) == [(0, "met 1"), (1, "met 0")]


def test_failures_are_named_when_the_others_are_done() -> None:
    alive: list[int] = []
    died = r"second: its process died with exit code -9; was memory short\?"
    with pytest.raises(ValueError, match=rf"^zeroth, first: three blind mice; {died}$"):
        run_all(
            [Job("zeroth", fails, (OSError,)), Job("first", fails, (ValueError,)), Job("second", dies, (-9,))],
            workers=1,
            on_message=lambda *_: alive.append(len(multiprocessing.active_children())),
        )
    assert len(alive) == 2
    assert max(alive) <= 1, "there is one worker, which may have ended when its message is read"
    with pytest.raises(RuntimeError, match=r"(?s)^first: Traceback.*in fails.*ZeroDivisionError: three blind mice"):
        run_all([Job("first", fails, (ZeroDivisionError,))], workers=1)
    with pytest.raises(ValueError, match="workers must be at least 1, got 0"):
        run_all([], workers=0)


def test_a_job_whose_process_was_killed_is_begun_again_so_many_times(tmp_path: Path) -> None:
    looks: list[float] = []
    job = Job("cat", dies_until, (3, tmp_path), retries=2)
    assert run_all([job], workers=1, look=lambda: looks.append(time.monotonic())) == [3]
    assert len(looks) > 3, "nobody looked meanwhile"
    with pytest.raises(ValueError, match=r"^cat: its process died with exit code -9"):
        run_all([Job("cat", dies_until, (9, tmp_path), retries=1)], workers=1)
    assert len(list(tmp_path.iterdir())) == 5


@pytest.mark.parametrize("how", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_processes_end_with_their_parent(how: signal.Signals) -> None:
    """SIGKILL reaches the parent alone, Ctrl-C everybody; it is the parent that decides about it, and says so."""
    code = (
        "from test_workers import says_its_id; from fewstep.experiments.workers import Job, run_all\n"
        "if __name__ == '__main__':\n"
        "    run_all([Job('long', says_its_id)], workers=1, on_message=lambda _, i: print(i, flush=True))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        if how is signal.SIGINT:
            os.kill(child, how)
            time.sleep(1)
        os.kill(parent.pid, how)
        try:
            # The child has inherited both pipes: they end when it does.
            _, errors = parent.communicate(timeout=60)
        finally:
            if parent.returncode is None:
                os.killpg(parent.pid, signal.SIGKILL)
    assert errors.count("KeyboardInterrupt") == (how is signal.SIGINT), errors
    assert "ValueError" not in errors, "the child had died by itself"


@pytest.mark.skipif(sys.platform != "linux", reason="where processes are forked from a server")
@pytest.mark.parametrize("dies", [False, True], ids=["", "of the server too"])
def test_a_signal_in_the_middle_of_a_start_loses_no_process(dies: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, read = list[int](), forkserver.read_signed

    def interrupted(connection: int) -> int:
        if begun:  # it reads the status of its end as well
            return read(connection)
        begun.append(read(connection))
        signal.raise_signal(signal.SIGTERM)
        if dies:
            os.kill(begun[0], signal.SIGKILL)
            raise EOFError("unexpected EOF")
        return begun[0]

    monkeypatch.setattr(forkserver, "read_signed", interrupted)
    with pytest.raises(Stopped), stoppable():
        run_all([Job("one", says_its_id)], workers=1)
    (pid,) = begun
    until = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and time.monotonic() < until:
        time.sleep(0.01)
    assert not Path(f"/proc/{pid}").exists(), "it works on for nobody"
