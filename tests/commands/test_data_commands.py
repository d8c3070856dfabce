"""``fewstep data``: what it fetches, from servers of several kinds, and what it says."""

import http.server
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from fewstep.commands.main import main
from fewstep.data import embeddings
from fewstep.data.features import published
from fewstep.data.features.published import SETS, URL
from fewstep.data.storage.download import fetch

SPLITS = ("train", "val", "test")
SIZES = {"miniImageNet": {"train": 3, "val": 1, "test": 2}, "tieredImageNet": {"train": 2, "val": 2, "test": 1}}


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A small archive, and no net."""
    monkeypatch.setattr(published, "CLASSES", SIZES)
    monkeypatch.setattr(published, "PER_CLASS", 4)
    monkeypatch.setattr(published, "DIMENSIONS", 3)
    monkeypatch.setattr(published, "URL", "http://127.0.0.1:1/embeddings.zip")
    monkeypatch.setenv("FEWSTEP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def archive(path: Path, change: Callable[[str, str, dict[str, Any]], None] = lambda *_: None) -> Path:
    """DeepMind's archive, with few classes of few images."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("embeddings/../../evil_embeddings.pkl", b"x")
        for place in SETS:
            dataset, _ = place.split("/")
            for s, split in enumerate(SPLITS):
                names = [f"n{10 * s + c}" for c in range(SIZES[dataset][split]) for _ in range(4)]
                keys = [f"{i}-{name}-{name}_{i}.JPEG" for i, name in enumerate(names)]
                rows = np.random.default_rng(len(names)).normal(size=(len(names), 3)).astype(np.float32)
                record = {"embeddings": rows, "keys": np.array(keys), "labels": np.array(names)}
                change(place, split, record)
                file.writestr(f"embeddings/{place}/{split}_embeddings.pkl", pickle.dumps(record, 2))
    return path


class Server(http.server.ThreadingHTTPServer):
    """Serves one file; counts what is asked, and can break off."""

    def __init__(self, content: bytes, *, ranges: bool = True, tag: str = '"one"') -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.ranges, self.tag = content, ranges, tag
        self.breaks: list[int] = []  # bytes after which the next answers break off
        self.pause = 0.0  # after each kilobyte
        self.sent: list[tuple[int, int]] = []  # status and first byte of each answer
        self.failing = 0  # answers of 503 to come

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/embeddings.zip"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server = cast(Server, self.server)
        if server.failing:
            server.failing -= 1
            server.sent.append((503, 0))
            self.send_error(503)
            return
        start, asked = 0, self.headers.get("Range")
        if asked and server.ranges and self.headers.get("If-Range") in (None, server.tag):
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
        if start and start >= len(server.content):
            server.sent.append((416, start))
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(server.content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        server.sent.append((206 if start else 200, start))
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}")
        self.send_header("ETag", server.tag)
        self.send_header("Content-Length", str(len(server.content) - start))
        self.end_headers()
        rest = server.content[start:][: server.breaks.pop(0) if server.breaks else None]
        try:
            for i in range(0, len(rest), 1024):
                self.wfile.write(rest[i : i + 1024])
                time.sleep(server.pause)
        except OSError:
            pass

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(content: bytes, **options: Any) -> Server:
        servers.append(Server(content, **options))
        threading.Thread(target=servers[-1].serve_forever, args=(0.01,), daemon=True).start()
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


CONTENT = np.random.default_rng(0).bytes(100_000)


def test_a_killed_fetch_goes_on_where_it_stopped(tmp_path: Path, serve: Callable[..., Server]) -> None:
    server = serve(CONTENT)
    server.pause = 0.05
    target, part = tmp_path / "file.zip", tmp_path / "file.zip.part"
    code = (
        "import sys; from pathlib import Path; import fewstep.data.storage.download as d; d._CHUNK = 4096;"
        "d.fetch(sys.argv[1], Path(sys.argv[2]))"
    )
    process = subprocess.Popen([sys.executable, "-c", code, server.url, str(target)])
    deadline = time.monotonic() + 60
    while not (part.is_file() and part.stat().st_size >= 8192):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(10)
    kept = part.stat().st_size
    assert 8192 <= kept < len(CONTENT)
    assert not target.exists()
    server.pause = 0
    told: list[tuple[int, int | None]] = []
    assert fetch(server.url, target, lambda *of: told.append(of)) == target
    assert server.sent == [(200, 0), (206, kept)]
    assert target.read_bytes() == CONTENT
    assert told[0] == (kept, len(CONTENT))
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert sorted(os.listdir(tmp_path)) == ["file.zip", "file.zip.lock"]
    fetch(server.url, target)
    assert len(server.sent) == 2, "what is there is not asked for"


def test_a_connection_that_breaks_is_taken_up_again(tmp_path: Path, serve: Callable[..., Server]) -> None:
    server = serve(CONTENT)
    server.breaks = [30_000, 30_000, 0, 0, 10_000, 0, 0]
    assert fetch(server.url, tmp_path / "file").read_bytes() == CONTENT
    assert [start for _, start in server.sent] == [0, 30_000, 60_000, 60_000, 60_000, 70_000, 70_000, 70_000]


def test_a_server_without_ranges_sends_all_again(tmp_path: Path, serve: Callable[..., Server]) -> None:
    server = serve(CONTENT, ranges=False)
    server.breaks = [40_000, 0, 0, 0]
    with pytest.raises(ConnectionError):
        fetch(server.url, tmp_path / "file")
    asked = len(server.sent)
    assert fetch(server.url, tmp_path / "file").read_bytes() == CONTENT
    assert server.sent[asked:] == [(200, 0)]


def test_a_file_that_changed_meanwhile_is_not_patched_together(tmp_path: Path, serve: Callable[..., Server]) -> None:
    server = serve(CONTENT)
    server.breaks = [50_000, 0, 0, 0]
    with pytest.raises(ConnectionError, match="broke off after 50,000 of 100,000 bytes; 50,000 bytes are kept"):
        fetch(server.url, tmp_path / "file")
    server.content, server.tag = CONTENT[::-1], '"two"'
    assert fetch(server.url, tmp_path / "file").read_bytes() == CONTENT[::-1]


def test_a_fetch_killed_after_its_last_byte_is_complete(tmp_path: Path, serve: Callable[..., Server]) -> None:
    server = serve(CONTENT)
    (tmp_path / "file.part").write_bytes(CONTENT)
    (tmp_path / "file.part.version").write_text('"one"')
    assert fetch(server.url, tmp_path / "file").read_bytes() == CONTENT
    assert server.sent == [(416, len(CONTENT))]
    (tmp_path / "file").unlink()
    (tmp_path / "file.part").write_bytes(CONTENT + b"more")
    (tmp_path / "file.part.version").write_text('"one"')
    with pytest.raises(ConnectionError, match="416"):
        fetch(server.url, tmp_path / "file")
    assert fetch(server.url, tmp_path / "file").read_bytes() == CONTENT


def test_a_busy_server_is_asked_again_and_a_refusal_is_final(tmp_path: Path, serve: Callable[..., Server]) -> None:
    server = serve(CONTENT)
    server.failing = 2
    assert fetch(server.url, tmp_path / "file").read_bytes() == CONTENT
    server.failing = 3
    with pytest.raises(ConnectionError, match="503"):
        fetch(server.url, tmp_path / "other")


def run(*arguments: Any) -> int:
    """The status of a command."""
    try:
        main(["data", *map(str, arguments)])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_leo_embeddings_are_fetched_laid_out_and_checked(
    tmp_path: Path, serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content = archive(tmp_path / "made.zip").read_bytes()
    server = serve(content)
    server.breaks = [1000, 0, 0, 0]
    monkeypatch.setattr(published, "URL", server.url)
    assert run("leo-embeddings", "--out", tmp_path / "out") == 2
    told = " ".join(capsys.readouterr().err.split())
    assert f"1,000 bytes are kept). The same command goes on from there. Or fetch {server.url} elsewhere" in told
    assert f"put it at {tmp_path / 'out' / 'embeddings.zip'} or give its place by --path" in told
    assert run("leo-embeddings", "--out", tmp_path / "out") == 0
    assert server.sent[-1] == (206, 1000)
    shown = capsys.readouterr().out
    for place in SETS:
        folder = tmp_path / "out" / "embeddings" / place
        assert f"ready: {folder}\n" in shown
        for split in SPLITS:
            assert embeddings(folder, split).classes == SIZES[place.split("/")[0]][split]  # type: ignore[arg-type]
    assert "miniImageNet/center: 3 train, 1 val, 2 test classes, as published" in shown
    assert not list(tmp_path.rglob("*evil*"))
    assert not (tmp_path / "out" / "embeddings.zip").exists()
    asked = len(server.sent)
    assert run("leo-embeddings", "--out", tmp_path / "out") == 0
    assert "holds them already" in capsys.readouterr().out
    assert len(server.sent) == asked


def test_without_a_net_the_error_says_what_to_fetch_and_where_to_put_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert URL == "http://storage.googleapis.com/leo-embeddings/embeddings.zip"
    assert run("leo-embeddings") == 2
    told = " ".join(capsys.readouterr().err.split())
    place = tmp_path / "cache" / "leo-embeddings" / "embeddings.zip"
    assert re.search(r"cannot fetch the LEO embeddings \(.*refused.*\)", told)
    assert f"Or fetch http://127.0.0.1:1/embeddings.zip elsewhere, and put it at {place} or give its place by" in told
    archive(place)
    assert run("leo-embeddings") == 0


def test_a_local_copy_is_an_archive_or_a_folder_and_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    local = archive(tmp_path / "mine.zip")
    assert run("leo-embeddings", "--path", local, "--out", tmp_path / "out") == 0
    assert local.exists()
    (tmp_path / "out" / "embeddings" / "tieredImageNet" / "center" / "val_embeddings.pkl").unlink()
    for place in (tmp_path / "out", tmp_path / "out" / "embeddings"):
        capsys.readouterr()
        assert run("leo-embeddings", "--path", place) == 0
        assert capsys.readouterr().out.count("ready: ") == 2, "a set that lacks a split is not one"
    for place, told in (
        (tmp_path / "nowhere", "there is no file or folder"),
        (tmp_path / "cache", "holds none of mini"),
    ):
        assert run("leo-embeddings", "--path", place) == 2
        assert told in " ".join(capsys.readouterr().err.split())


def fewer_rows(place: str, split: str, record: dict[str, Any]) -> None:
    if (place, split) == ("miniImageNet/multiview", "val"):
        record.update({name: record[name][:-1] for name in record})


def fewer_dimensions(place: str, split: str, record: dict[str, Any]) -> None:
    record["embeddings"] = record["embeddings"][:, :2].copy()


def fewer_classes(place: str, split: str, record: dict[str, Any]) -> None:
    if (place, split) == ("tieredImageNet/center", "train"):
        record.update({name: record[name][:4] for name in record})


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            fewer_rows,
            "multiview/val_embeddings.pkl is not what was published: expected 1 classes of 4 rows of 3 "
            "dimensions, it holds 1 of 3 to 3 rows of 3. Remove it, and fetch http",
        ),
        (fewer_dimensions, "center/train_embeddings.pkl is not what was published: .* 3 of 4 to 4 rows of 2"),
        (fewer_classes, "center/train_embeddings.pkl is not .* expected 2 classes of at least 4 rows .* holds 1 of 4"),
    ],
)
def test_other_structures_than_the_published_are_refused(
    change: Callable[..., None], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("leo-embeddings", "--path", archive(tmp_path / "mine.zip", change), "--out", tmp_path / "out") == 2
    assert re.search(told, " ".join(capsys.readouterr().err.split()))


def test_an_archive_without_a_published_set_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as other:
        other.writestr("embeddings/CUB/center/train_embeddings.pkl", b"")
    assert run("leo-embeddings", "--path", tmp_path / "other.zip", "--out", tmp_path / "out") == 2
    assert f"other.zip lacks {', '.join(SETS)}: remove it" in " ".join(capsys.readouterr().err.split())


def test_a_truncated_archive_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    local = archive(tmp_path / "mine.zip")
    local.write_bytes(local.read_bytes()[:-100])
    assert run("leo-embeddings", "--path", local, "--out", tmp_path / "out") == 2
    assert "mine.zip is damaged, truncated or not embeddings.zip" in " ".join(capsys.readouterr().err.split())
    assert not list((tmp_path / "out").rglob("*.pkl"))


def rows(path: Path, **changed: Any) -> Path:
    features = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float16)
    entries = {"features": features, "labels": np.arange(8) // 2, "split": np.array([0, 0, 0, 0, 1, 1, 2, 2])}
    np.savez(path, **{**entries, **changed})
    return path


def test_convert_and_inspect(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("convert", rows(tmp_path / "rows.npz"), tmp_path / "store.safetensors") == 0
    assert f"written: {tmp_path / 'store.safetensors'}\n" in capsys.readouterr().out
    assert run("inspect", tmp_path / "store.safetensors") == 0
    shown = capsys.readouterr().out
    title, *table = shown.splitlines()
    assert title == f"{tmp_path / 'store.safetensors'}: float16, 3 dimensions"
    assert all(len(line) <= 80 for line in table)
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in table if line.startswith("│")]
    assert [row[:4] for row in cells] == [["train", "2", "4", "2"], ["val", "1", "2", "2"], ["test", "1", "2", "2"]]
    low, middle, high = map(float, cells[0][4:])
    assert 0 < low < middle < high
    assert table[-1] == "no problems found"
    assert run("convert", tmp_path / "rows.npz", tmp_path / "store.safetensors") == 2
    assert "exists: remove it" in " ".join(capsys.readouterr().err.split())


def test_inspect_ends_with_a_status_that_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    same = np.ones((8, 3), np.float16)
    assert run("inspect", rows(tmp_path / "copies.npz", features=same)) == 0
    shown = capsys.readouterr().out
    assert "warning: 3 rows of train that are copies of others" in shown
    assert "warning: 1 row of test that is in train too" in shown
    same[5, 1] = np.nan
    assert run("inspect", rows(tmp_path / "nan.npz", features=same)) == 1
    assert "refused: 1 row of val with NaN or infinity; the first is 5, class '2'" in capsys.readouterr().out
    assert run("inspect", rows(tmp_path / "shared.npz", labels=np.array([0, 0, 1, 1, 2, 2, 0, 0]))) == 1
    assert "refused: class '0' is in train and in test" in capsys.readouterr().out
    assert run("inspect", rows(tmp_path / "short.npz", labels=np.arange(7))) == 2
    assert "8 rows of features but 7 labels" in " ".join(capsys.readouterr().err.split())
    (tmp_path / "cut.npz").write_bytes((tmp_path / "nan.npz").read_bytes()[:300])
    assert run("inspect", tmp_path / "cut.npz") == 2
    assert "cut.npz is damaged or holds no plain arrays" in " ".join(capsys.readouterr().err.split())


def test_large_counts_fit_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = np.concatenate([np.arange(2000) % 1000, np.full(11_000, 1000)])
    features = np.random.default_rng(0).normal(size=(13_000, 1)) * 1e-9
    features[0] = -1.23456e8
    np.savez(tmp_path / "rows.npz", features=features, labels=labels)
    assert run("inspect", tmp_path / "rows.npz") == 0
    _, *table = capsys.readouterr().out.splitlines()
    table = [line for line in table if not line.startswith("warning: ")]
    assert all(len(line) <= 80 for line in table)
    for text in ("(none)", "1,001", "13,000", "2 to 11,000", "1.235e+08"):
        assert text in " ".join(table)


def test_a_command_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("inspcet", "x") == 2
    assert "inspect" in capsys.readouterr().err
    main([])
    assert "fewstep data inspect FILE" in capsys.readouterr().out


def test_convert_divides_the_classes_of_a_file_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
    np.savez(tmp_path / "f.npz", X=rows, Y=np.arange(12) // 2)
    source, target = str(tmp_path / "f.npz"), tmp_path / "split.npz"
    main(["data", "convert", source, str(target), "--divide", "3", "1", "2", "--seed", "7"])
    said = " ".join(capsys.readouterr().out.split())
    assert "its 6 classes are divided at random (seed 7): 3 for train, 1 for val, 2 for test" in said
    assert [embeddings(target, split).classes for split in SPLITS] == [3, 1, 2]
    with pytest.raises(SystemExit):
        main(["data", "convert", source, str(tmp_path / "g.npz"), "--divide", "3", "1", "1"])
    assert "which cannot be divided into 3 + 1 + 1" in " ".join(capsys.readouterr().err.split())
