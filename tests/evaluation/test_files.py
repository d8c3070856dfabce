import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from fewstep.data.storage.files import folder_beside, replacing, write_atomically


def test_writes_text_and_bytes_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    write_atomically(path, "±\r\n")
    assert path.read_bytes() == "±\r\n".encode()
    write_atomically(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    assert os.listdir(path.parent) == ["a.txt"]


def test_a_failure_leaves_the_old_file_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    write_atomically(path, "old")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def begin(path: Path, ready: object) -> None:
    """Be at two writes, until somebody ends this."""
    with replacing(path) as file, folder_beside(path) as folder:
        file.write(b"half")
        (folder / "half").touch()
        ready.set()  # type: ignore[attr-defined]
        signal.pause()


def test_what_a_killed_process_has_left_of_a_file_goes_with_the_next_write_of_it(tmp_path: Path) -> None:
    path, other = tmp_path / "a.npz", tmp_path / ".b.npz.0123abcd.part"
    other.touch()  # of another file
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    writer = context.Process(target=begin, args=(path, ready))
    writer.start()
    assert ready.wait(30)
    write_atomically(path, "ours")
    assert len(os.listdir(tmp_path)) == 4, "of a process that lives"
    writer.kill()
    writer.join()
    assert len(os.listdir(tmp_path)) == 4
    write_atomically(path, "ours")
    assert set(os.listdir(tmp_path)) == {"a.npz", other.name}
