import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fewstep.data.images.store import ImageSource, find_store, image_store
from fewstep.data.storage import lock

COUNTS = (3, 0, 4)


def source(
    read: Callable[[int], np.ndarray] | None = None, opened: list[int] | None = None, **made_of: Any
) -> ImageSource:
    def numbered(i: int) -> np.ndarray:
        time.sleep(0.001 * (i % 2))  # so that images come in another order than they are asked for
        return np.full((3, 2, 2), i, np.uint8)

    def open_() -> Callable[[int], np.ndarray]:
        if opened is not None:
            opened.append(1)
        return read or numbered

    return ImageSource(
        name="Some Images",
        class_names=("a", "b", "c"),
        counts=COUNTS,
        shape=(3, 2, 2),
        made_of={"recipe": 1, **made_of},
        open=open_,
    )


def test_a_store_is_made_once_and_mapped(tmp_path: Path) -> None:
    opened: list[int] = []
    told: list[str] = []
    for _ in range(2):
        dataset = image_store(source(opened=opened), cache=tmp_path / "new", report=told.append)
        assert isinstance(dataset.store, np.memmap)
        assert not dataset.store.flags.writeable
        assert dataset.store[:, 0, 0, 0].tolist() == list(range(7))
        assert dataset.offsets.tolist() == [0, 3, 3, 7]
        assert dataset.class_names == ("a", "b", "c")
    assert len(opened) == 1
    assert told[0].startswith("Some Images: reading 7 images, once, into")
    assert len(told) == 2
    (folder,) = (path for path in (tmp_path / "new").iterdir() if path.is_dir())
    assert folder.name == source().folder
    assert sorted(os.listdir(folder)) == ["copies.json", "images.npy", "index.json"]


def test_the_name_says_what_it_is_made_of(tmp_path: Path) -> None:
    base = source()
    others = [
        source(recipe=2),
        source(pillow="1"),
        replace(base, shape=(3, 4, 1)),
        replace(base, counts=(3, 1, 3)),
        replace(base, class_names=("a", "b", "d")),
    ]
    assert len({s.folder for s in (base, *others)}) == 6
    assert base.folder == source().folder


def damage_index(folder: Path) -> None:
    (folder / "index.json").write_text("{")


def change_index(folder: Path) -> None:
    index = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps(index | {"class_names": ["a", "b", "x"]}))


def cut_images(folder: Path) -> None:
    content = (folder / "images.npy").read_bytes()
    (folder / "images.npy").write_bytes(content[:-1])


def other_images(folder: Path) -> None:
    np.save(folder / "images.npy", np.zeros((7, 3, 2, 2), np.float32))


def no_images(folder: Path) -> None:
    (folder / "images.npy").unlink()


@pytest.mark.parametrize("damage", [damage_index, change_index, cut_images, other_images, no_images])
def test_damaged_stores_are_made_again(damage: Callable[[Path], None], tmp_path: Path) -> None:
    image_store(source(), cache=tmp_path)
    damage(tmp_path / source().folder)
    assert find_store(source(), cache=tmp_path) is None
    assert image_store(source(), cache=tmp_path).store[6, 0, 0, 0] == 6
    assert not list(tmp_path.glob("*.part"))
    assert not list(tmp_path.glob(".*.part"))


@pytest.mark.parametrize("error", [ValueError("x.png is damaged"), FileNotFoundError("there is no image x.png")])
def test_errors_of_the_source_pass_and_leave_nothing(error: Exception, tmp_path: Path) -> None:
    def read(i: int) -> np.ndarray:
        if i == 5:
            raise error
        return np.zeros((3, 2, 2), np.uint8)

    with pytest.raises(type(error), match=r"^(x.png is damaged|there is no image x.png)$"):
        image_store(source(read), cache=tmp_path)
    assert os.listdir(tmp_path) == [f"{source().folder}.lock"]
    with pytest.raises(ValueError, match=r"an image is uint8 \[3, 1, 1\], not uint8 \[3, 2, 2\]"):
        image_store(source(lambda i: np.zeros((3, 1, 1), np.uint8)), cache=tmp_path)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"cannot keep the images of Some Images in .*file.*set \$FEWSTEP_CACHE"):
        image_store(source(), cache=tmp_path / "file")


def _build(folder: Path, pause: float, results: Any) -> None:
    def read(i: int) -> np.ndarray:
        if i == 6:
            time.sleep(pause)
        return np.full((3, 2, 2), i, np.uint8)

    opened: list[int] = []
    dataset = image_store(source(read, opened), cache=folder)
    results.put((len(opened), dataset.store[:, 0, 0, 0].tolist()))


def _start(folder: Path, pause: float, results: Any) -> Any:
    process = multiprocessing.get_context("fork").Process(target=_build, args=(folder, pause, results))
    process.start()
    return process


def _wait_for(what: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 20
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.skipif(os.name == "nt", reason="processes are forked")
def test_two_processes_make_one_store(tmp_path: Path) -> None:
    results = multiprocessing.get_context("fork").SimpleQueue()
    first = _start(tmp_path, 0.3, results)
    _wait_for(lambda: list(tmp_path.glob(".*.part")))
    second = _start(tmp_path, 0.3, results)
    for process in (first, second):
        process.join(30)
        assert process.exitcode == 0
    assert sorted(results.get() for _ in range(2)) == [(0, list(range(7))), (1, list(range(7)))]


@pytest.mark.skipif(os.name == "nt", reason="processes are forked")
def test_a_killed_making_leaves_nothing_that_lasts(tmp_path: Path) -> None:
    results = multiprocessing.get_context("fork").SimpleQueue()
    process = _start(tmp_path, 60, results)
    _wait_for(lambda: list(tmp_path.glob(".*.part/images.npy")))
    os.kill(process.pid, signal.SIGKILL)
    process.join(30)
    assert len(list(tmp_path.glob(".*.part"))) == 1
    assert find_store(source(), cache=tmp_path) is None
    assert image_store(source(), cache=tmp_path).store[6, 0, 0, 0] == 6
    assert sorted(os.listdir(tmp_path)) == sorted([source().folder, f"{source().folder}.lock"])


def test_without_locks_the_second_takes_what_the_first_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "fcntl", None)
    inner: list[int] = []

    def read(i: int) -> np.ndarray:
        if i == 0 and not inner:
            inner.append(1)
            image_store(source(), cache=tmp_path)  # another one begins later and ends earlier
        return np.full((3, 2, 2), 100 + i, np.uint8)

    assert image_store(source(read), cache=tmp_path).store[6, 0, 0, 0] == 6
    assert not list(tmp_path.glob(".*.part"))
