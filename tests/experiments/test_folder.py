"""Folders of experiments: whose they are, what depends on their files, and names that are spelled once."""

import ast
import json
import os
from collections import Counter
from pathlib import Path

import pytest

import fewstep
from fewstep.data.storage.files import read_json
from fewstep.experiments import folder as folders
from fewstep.experiments.folder import all_or_nothing, claim, clear, data_of, fingerprint, require_empty, require_same
from fewstep.experiments.workers import Throttle, count_workers
from fewstep.training import checkpoint


def test_files_of_a_run_are_spelled_once() -> None:
    sources = [path.read_text(encoding="utf-8") for path in Path(fewstep.__file__).parent.rglob("*.py")]
    nodes = [node for text in sources for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant)]
    spelled = Counter(node.value for node in nodes if isinstance(node.value, str))
    names = (checkpoint.BEST, checkpoint.LAST, folders.CONFIG, folders.PROBLEM, folders.ENVIRONMENT, folders.EXTRACTOR)
    assert {name: spelled[name] for name in names} == dict.fromkeys(names, 1)


def test_a_folder_belongs_to_who_claimed_it_first(tmp_path: Path) -> None:
    first, second = {"trials": 1}, {"trials": 2}
    (tmp_path / "out").mkdir()
    for name in ("log.txt", ".lock"):  # a detached process, and one at work, begin with these
        (tmp_path / "out" / name).touch()
    assert claim(tmp_path / "out", "mine.json", first, "a test") == first
    assert claim(tmp_path / "out", "mine.json", second, "a test") == first
    with pytest.raises(ValueError, match="holds something else than a test"):
        claim(tmp_path / "out", "other.json", second, "a test")
    with pytest.raises(ValueError, match="is a file"):
        claim(tmp_path / "out" / "mine.json", "other.json", second, "a test")


def test_a_folder_is_not_taken_for_another(tmp_path: Path) -> None:
    whole = "run", folders.CONFIG, folders.BEGINNING
    require_empty(tmp_path, *whole)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ValueError, match="not empty, and holds no run: choose another folder"):
        require_empty(tmp_path, *whole)
    (tmp_path / folders.CONFIG).touch()
    with pytest.raises(ValueError, match="not empty: continue that run with --resume"):
        require_empty(tmp_path, *whole)
    clear(tmp_path, ("notes.txt", folders.CONFIG))
    require_empty(tmp_path, *whole)
    require_same(tmp_path, "a run", {"rate": 1}, {"rate": 1})
    with pytest.raises(ValueError, match=r"holds a run with other settings \(rate: 1 there, 2 here\)"):
        require_same(tmp_path, "a run", {"rate": 1}, {"rate": 2})


def test_a_fingerprint_is_of_everything_that_a_result_depends_on(tmp_path: Path) -> None:
    seen = [fingerprint(tmp_path), fingerprint(tmp_path, 1), fingerprint(tmp_path, 2)]
    for name in (folders.CONFIG, checkpoint.BEST, checkpoint.LAST, "test.json"):
        (tmp_path / name).write_text(name)
        seen.append(fingerprint(tmp_path, files=("test.json",)))
    assert len(set(seen)) == len(seen)
    os.utime(tmp_path / folders.CONFIG, (0, 0))
    assert fingerprint(tmp_path, files=("test.json",)) == seen[-1], "of the content, not of the times"


def test_json_is_read_as_an_object_or_refused(tmp_path: Path) -> None:
    file = tmp_path / "file.json"
    assert read_json(file) == {}
    file.write_text(json.dumps({"ü": 1}, ensure_ascii=False), encoding="utf-8")
    assert read_json(file) == {"ü": 1}
    for damaged in (b'{"half', b"[1]", b"\xff", b"", b"[" * 10**5):
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"file\.json is damaged"):
            read_json(file)


def test_how_many_processes_work_at_once() -> None:
    assert count_workers(3, 100) == 3
    assert count_workers(None, 10_000) == 1, "one at least"
    assert count_workers(None, 1, "cuda") == 1
    with pytest.raises(ValueError, match="threads must be at least 1, got 0"):
        count_workers(None, 0)


def test_a_throttle_lets_the_first_through(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([5.0, 5.9, 6.0, 6.5, 7.0])
    monkeypatch.setattr("time.monotonic", lambda: next(times))
    due = Throttle(1.0)
    assert [due() for _ in range(5)] == [True, False, True, False, True]


def test_a_member_of_an_archive_is_not_sought_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "images.tar").touch()
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    told: list[str] = []
    member = str(tmp_path / "images.tar" / "photos")
    assert data_of(member, told.append) == member
    assert data_of("/elsewhere/photos", told.append) == str(tmp_path / "photos")
    assert len(told) == 1


def test_what_fails_leaves_a_folder_that_held_something_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()

    def fail() -> None:
        (tmp_path / "half").touch()
        raise ValueError("refused")

    with pytest.raises(ValueError, match="refused"), all_or_nothing(tmp_path):
        fail()
    assert {path.name for path in tmp_path.iterdir()} == {"mine.txt", "half"}
