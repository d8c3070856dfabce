"""Runs that are followed elsewhere, by the services themselves: what they have stored is what the run logged."""

import csv
import json
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fewstep.commands.main import main

SHORT = [
    *("--training.steps", "20", "--training.validate-every", "10", "--training.log-every", "10"),
    *("--training.validation-tasks", "5", "--testing.tasks", "5", "--training.compile", "off"),
]


def train(folder: Path, *options: str) -> dict[tuple[str, int], float]:
    """What is logged by step and name."""
    main(["train", "maml-sinusoid", "--out", str(folder), *SHORT, *options])
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {(f"{row['split']}/{row['name']}", int(row["step"])): float(row["value"]) for row in rows}


def test_mlflow_has_what_the_run_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    logged = train(tmp_path / "run", "--track", "mlflow")
    main(["train", "--resume", str(tmp_path / "run"), "--track", "mlflow"])  # it goes on in the same
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("fewstep").experiment_id])
    assert run.data.params["training.steps"] == "20"
    assert run.info.status == "FINISHED"
    for (name, step), value in logged.items():
        assert [m.value for m in client.get_metric_history(run.info.run_id, name) if m.step == step] == [value]
    assert {"test-5-shot/adapted", "test-10-shot/adapted"} <= run.data.metrics.keys()


def test_trackio_has_what_the_run_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # read at import
    pytest.importorskip("trackio")
    from trackio.sqlite_storage import SQLiteStorage

    logged = train(tmp_path / "run", "--track", "trackio")
    (run,) = SQLiteStorage.get_runs("fewstep")
    rows = SQLiteStorage.get_logs("fewstep", run)
    for (name, step), value in logged.items():
        assert [row[name] for row in rows if row["step"] == step and name in row] == [value]


def test_wandb_writes_what_the_run_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    logged = train(tmp_path / "run", "--track", "wandb")
    wandb.teardown()  # its process writes on for a while after a run has finished
    (file,) = (tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb")
    rows = list(_history(file))
    for (name, step), value in logged.items():
        assert [row[name] for row in rows if row["_step"] == step and name in row] == [value]


def _history(file: Path) -> Iterator[dict[str, Any]]:
    """The logged rows of a file that W&B writes without a network: a LevelDB log of protocol buffers.

    Seven bytes of header, then blocks of 32 KiB; each piece of a record has a checksum, a length and a kind (whole,
    first, middle, last).
    """
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, parts = file.read_bytes(), 7, b""
    while place + 7 <= len(data):
        if 2**15 - place % 2**15 < 7:
            place += 2**15 - place % 2**15
        _, length, kind = struct.unpack_from("<IHB", data, place)
        parts += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            record = Record.FromString(parts)
            parts = b""
            if items := record.history.item:
                yield {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def test_what_cannot_follow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A service that is not here is named before anything is trained."""
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(SystemExit):
        train(tmp_path / "run", "--track", "trackio")
    told = " ".join(capsys.readouterr().err.split())
    assert "track: trackio cannot be imported" in told
    assert "pip install 'fewstep[trackio]'" in told
    assert not (tmp_path / "run").exists()
