"""A cache that can be read but not written, as on a shared cluster: what is in it is used, and what is not is told."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fewstep.data import Dataset, embeddings, photographs


@pytest.fixture
def sealed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From its call on nothing can be written below the cache. Modes would not do: root may write anywhere."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("FEWSTEP_CACHE", str(cache))

    def refuse(path: Any) -> None:
        if Path(path).is_relative_to(cache):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    def seal() -> None:
        opening, making, replacing = Path.open, Path.mkdir, os.replace

        def open_(self: Path, mode: str = "r", *rest: Any, **options: Any) -> Any:
            if set(mode) & set("wax+"):
                refuse(self)
            return opening(self, mode, *rest, **options)

        def mkdir(self: Path, *rest: Any, **options: Any) -> None:
            if not self.is_dir():
                refuse(self)
            making(self, *rest, **options)

        def replace(source: Any, target: Any) -> None:
            refuse(target)
            replacing(source, target)

        monkeypatch.setattr(Path, "open", open_)
        monkeypatch.setattr(Path, "mkdir", mkdir)
        monkeypatch.setattr(os, "replace", replace)

    return seal


def features(folder: Path) -> Callable[[], Dataset]:
    rows = np.random.default_rng(0).normal(size=(12, 8)).astype(np.float32)
    np.savez(folder / "mine.npz", features=rows, labels=np.repeat(np.arange(3), 4))
    return lambda: embeddings(folder / "mine.npz", "all", report=lambda _: None)


def photos(folder: Path) -> Callable[[], Dataset]:
    for name in ("train/one", "train/two"):
        (folder / "photos" / name).mkdir(parents=True)
        for i, pixels in enumerate(np.random.default_rng(0).integers(0, 255, (4, 20, 20, 3), np.uint8)):
            Image.fromarray(pixels).save(folder / "photos" / name / f"{i}.png")
    return lambda: photographs("train", folder / "photos", size=16, report=lambda _: None)


def pairs(folder: Path) -> Callable[[], Dataset]:
    items = [(np.full((1, 4, 4), i, np.uint8), i // 2) for i in range(6)]
    return lambda: Dataset.from_torch(items, name="pairs", key="these")


@pytest.mark.parametrize("make", [features, photos, pairs])
def test_all_is_there(
    make: Callable[[Path], Callable[[], Dataset]], tmp_path: Path, sealed: Callable[[], None]
) -> None:
    read = make(tmp_path)
    before = read()
    sealed()
    after = read()
    assert np.array_equal(np.asarray(before.store), np.asarray(after.store))
    assert before.class_names == after.class_names


@pytest.mark.parametrize("make", [features, photos, pairs])
def test_something_must_be_written(
    make: Callable[[Path], Callable[[], Dataset]], tmp_path: Path, sealed: Callable[[], None]
) -> None:
    read = make(tmp_path)
    (tmp_path / "cache").mkdir()
    sealed()
    with pytest.raises(OSError, match=rf"^cannot keep .* in {tmp_path / 'cache'} \(.*\): set \$FEWSTEP_CACHE to a .*$"):
        read()
