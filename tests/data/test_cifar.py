import errno
import functools
import hashlib
import http.server
import importlib.util
import io
import json
import os
import pickle
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fewstep.data import Dataset, cifar_fs, fc100
from fewstep.data.images import cifar
from fewstep.data.images.class_splits import all_classes, class_split

NAMES = all_classes("CIFAR-FS")
SPLITS = ("train", "val", "trainval", "test")


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Three images of a class instead of 600, and no net."""
    monkeypatch.setattr(cifar, "PARTS", {"train": 2, "test": 1})
    monkeypatch.setattr(cifar, "URL", "http://127.0.0.1:1/cifar-100-python.tar.gz")
    monkeypatch.setenv("FEWSTEP_CACHE", str(tmp_path / "cache"))


def records() -> dict[str, dict[bytes, Any]]:
    """The official layout, with random pixels in a random order."""
    random = np.random.default_rng(0)
    files: dict[str, dict[bytes, Any]] = {"meta": {b"fine_label_names": [name.encode() for name in NAMES]}}
    for part, count in (("train", 2), ("test", 1)):
        labels = random.permutation(np.repeat(np.arange(100), count)).tolist()
        files[part] = {b"fine_labels": labels, b"data": random.integers(0, 256, (100 * count, 3072), np.uint8)}
    return files


def expected(name: str) -> np.ndarray:
    """Rows of a class by a plain search."""
    label, rows = NAMES.index(name), []
    for part in ("train", "test"):
        file = records()[part]
        rows += [row for row, of in zip(file[b"data"], file[b"fine_labels"], strict=True) if of == label]
    return np.stack(rows).reshape(3, 3, 32, 32)


def write_folder(folder: Path, files: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(pickle.dumps(content, 2))
    return folder


def write_archive(path: Path, files: dict[str, Any], *more: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for member in more:
            archive.addfile(member)
        for name, content in files.items():
            member = tarfile.TarInfo(f"cifar-100-python/{name}")
            data = content if isinstance(content, bytes) else pickle.dumps(content, 2)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def write_images(folder: Path) -> Path:
    for name in NAMES:
        (folder / "data" / name).mkdir(parents=True)
        for i, row in enumerate(expected(name)):
            Image.fromarray(row.transpose(1, 2, 0)).save(folder / "data" / name / f"{i}.png")
    return folder


def class_rows(dataset: Dataset, name: str) -> np.ndarray:
    c = dataset.class_names.index(name)
    positions = np.arange(dataset.offsets[c], dataset.offsets[c + 1])
    return (dataset.gather(positions).numpy() * 255).round().astype(np.uint8)


@pytest.mark.parametrize("layout", ["archive", "archive's folder", "folder", "parent", "images", "images' parent"])
def test_every_layout_gives_the_same_rows(layout: str, tmp_path: Path) -> None:
    files = tmp_path / "files"
    if layout.startswith("archive"):
        files.mkdir()
        path = write_archive(files / "cifar-100-python.tar.gz", records())
        path = path if layout == "archive" else files
    elif layout.startswith("images"):
        path = write_images(files)
        path = path / "data" if layout == "images" else path
    else:
        path = write_folder(files / "cifar-100-python", records())
        path = path if layout == "folder" else files
    for load, name in ((cifar_fs, "dolphin"), (fc100, "wolf")):
        dataset = load("train" if load is cifar_fs else "val", path=path)
        assert dataset.feature_shape == (3, 32, 32)
        assert dataset.store.dtype == np.uint8
        assert np.array_equal(class_rows(dataset, name), expected(name))


def test_splits(tmp_path: Path, shared: Path) -> None:
    path = write_folder(tmp_path / "cifar-100-python", records())
    published = json.loads((shared / "reference" / "splits.json").read_text())
    fine = {name: superclass for part in published["CIFAR-FS"].values() for superclass, name in part}
    for load, title, sizes in ((cifar_fs, "CIFAR-FS", (64, 16, 80, 20)), (fc100, "FC100", (60, 20, 80, 20))):
        parts = {split: load(split, path=path) for split in SPLITS}
        assert tuple(parts[split].classes for split in SPLITS) == sizes
        assert all((dataset.sizes == 3).all() for dataset in parts.values())
        assert str(parts["val"]) == f"{title} val"
        assert parts["trainval"].class_names == parts["train"].class_names + parts["val"].class_names
        for split in ("train", "val", "test"):
            names = parts[split].class_names
            if title == "CIFAR-FS":
                assert names == tuple(name for _, name in published[title][split])
            else:
                assert tuple(dict.fromkeys(fine[name] for name in names)) == tuple(published[title][split])
    with pytest.raises(ValueError, match="split must be one of train, val, trainval, test, not 'dev'"):
        class_split("FC100", "dev")


def test_imagenet_lists_are_the_published_ones(shared: Path) -> None:
    published = json.loads((shared / "reference" / "splits.json").read_text())
    for ours, theirs in (("miniImageNet", "miniImageNet (Ravi & Larochelle)"), ("tieredImageNet", "tieredImageNet")):
        for split in ("train", "val", "test"):
            assert class_split(ours, split) == tuple(published[theirs][split])


def broken(part: str, key: bytes, value: Any) -> dict[str, Any]:
    files = records()
    files[part] = {**files[part], key: value}
    return files


@pytest.mark.parametrize(
    ("files", "told"),
    [
        (broken("test", b"data", np.zeros((100, 3000), np.uint8)), r"it holds uint8 \[100, 3000\]"),
        (broken("test", b"data", np.zeros((100, 3072), np.float32)), r"it holds float32 \[100, 3072\]"),
        (broken("train", b"fine_labels", [0] * 200), "train file must hold 2 images of each of its 100 classes"),
        (broken("train", b"fine_labels", [0] * 7), "train file must hold 2 images"),
        (broken("meta", b"fine_label_names", [b"airplane", b"car"]), "must list its 100 classes, it lists 2: .*air"),
        ({**records(), "test": [1, 2]}, "test file must be a dict with 'data', a ndarray"),
    ],
)
def test_other_structures_are_refused(files: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=told):
        cifar_fs("val", path=write_folder(tmp_path / "cifar-100-python", files))


def link(name: str, to: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, to
    return member


class Harm:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


def test_archives_are_read_with_care(tmp_path: Path) -> None:
    path = tmp_path / "cifar-100-python.tar.gz"
    files = records()
    # Members that are no regular files, or that would be written elsewhere, are passed over.
    write_archive(path, files, link("cifar-100-python/train", "/etc/passwd"), tarfile.TarInfo("../outside"))
    assert cifar_fs("val", path=path).classes == 16
    assert not (tmp_path.parent / "outside").exists()
    write_archive(path, {"meta": files["meta"], "test": files["test"]}, link("cifar-100-python/train", "test"))
    with pytest.raises(ValueError, match=r"tar\.gz holds no regular file cifar-100-python/train"):
        cifar_fs("val", path=path)
    write_archive(path, {**files, "train": Harm(tmp_path / "marker")})
    with pytest.raises(ValueError, match=r"tar\.gz is damaged.*asks for (posix|nt)\.system"):
        cifar_fs("val", path=path)
    assert not (tmp_path / "marker").exists()
    write_archive(path, files)
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(ValueError, match=r"tar\.gz is damaged or is not cifar-100-python\.tar\.gz"):
        cifar_fs("val", path=path)
    path.write_bytes(b"<html>404</html>")
    with pytest.raises(ValueError, match=r"tar\.gz is damaged or is not cifar-100-python\.tar\.gz"):
        cifar_fs("val", path=path)


def test_other_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no file or folder .*none"):
        cifar_fs("val", path=tmp_path / "none")
    with pytest.raises(ValueError, match=r"holds neither .*: .* lacks 100 of 100 classes, the first is apple"):
        cifar_fs("val", path=tmp_path)
    folder = write_images(tmp_path / "images")
    (folder / "data" / "wolf" / "1.png").unlink()
    with pytest.raises(ValueError, match="class wolf has 2 images, expected 3"):
        cifar_fs("val", path=folder)


def test_without_a_net_it_says_what_to_fetch_and_where_to_put_it(tmp_path: Path) -> None:
    place = tmp_path / "cache" / "cifar-100-python.tar.gz"
    with pytest.raises(
        ConnectionError, match=rf"Fetch http://127.* \(md5 eb9058c3\w+\) elsewhere and put it at {place}"
    ):
        cifar_fs("val")


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An archive on a server of this machine."""
    folder = tmp_path / "served"
    folder.mkdir()
    archive = write_archive(folder / "cifar-100-python.tar.gz", records())

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        monkeypatch.setattr(cifar, "URL", f"http://127.0.0.1:{server.server_port}/{archive.name}")
        monkeypatch.setattr(cifar, "MD5", hashlib.md5(archive.read_bytes()).hexdigest())
        yield archive
        server.shutdown()


@pytest.mark.parametrize("function", ["open", "write_text"])
def test_a_folder_without_write_permission_is_named_and_is_no_error_of_the_net(
    function: str, served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, *arguments: Any, **options: Any) -> None:  # permissions do not bind root
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    cache = tmp_path / "cache"
    monkeypatch.setattr(Path, function, refuse)
    named = {"open": f"cannot keep the images of CIFAR-100 in {cache} ", "write_text": f"the folder {cache} may not be"}
    with pytest.raises(PermissionError, match=named[function]):
        cifar_fs("test")


def test_download(served: Path, tmp_path: Path) -> None:
    told: list[str] = []
    dataset = cifar_fs("test", report=told.append)
    assert np.array_equal(class_rows(dataset, "whale"), expected("whale"))
    assert (tmp_path / "cache" / served.name).read_bytes() == served.read_bytes()
    assert any("fetching http://127" in line for line in told)
    assert any("MB" in line for line in told)
    told.clear()
    # The store serves both datasets, and the archive is no longer needed.
    (tmp_path / "cache" / served.name).unlink()
    served.unlink()
    assert fc100("test", report=told.append).classes == 20
    assert not told


def test_a_changed_archive_is_not_taken(served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served.write_bytes(served.read_bytes() + b"x")
    with pytest.raises(ConnectionError, match=r"hash .*does not match"):
        cifar_fs("test")
    assert not (tmp_path / "cache" / served.name).exists()


@pytest.mark.slow
def test_the_whole_of_cifar_100(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar, "PARTS", {"train": 500, "test": 100})
    spec = importlib.util.spec_from_file_location("unpack", shared / "data" / "unpack.py")
    unpack = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(unpack)
    unpack.write_cifar100(tmp_path)
    pixels, archive = unpack.load_cifar100()
    names = archive["class_names"].tolist()
    for load in (cifar_fs, fc100):
        for number, split in enumerate(("train", "val", "test")):
            dataset = load(split, path=tmp_path)
            wanted = archive[f"{'cifar_fs' if load is cifar_fs else 'fc100'}_split"] == number
            assert sorted(dataset.class_names) == sorted(np.array(names)[wanted])
            assert (dataset.sizes == 600).all()
    for name in ("dolphin", "apple", "worm"):
        dataset = next(
            d for split in ("train", "val", "test") if name in (d := cifar_fs(split, path=tmp_path)).class_names
        )
        rows, true = class_rows(dataset, name), pixels[names.index(name)].transpose(0, 3, 1, 2)
        for part in (slice(0, 500), slice(500, 600)):
            ours, theirs = (sorted(row.tobytes() for row in images[part]) for images in (rows, true))
            assert ours == theirs
