"""Runs on another machine than they were trained on: weights have no device, and a GPU need not be there."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import fewstep
from fewstep.commands.main import main
from fewstep.data.storage.files import read_json
from fewstep.experiments.compare.procedure import compare
from fewstep.experiments.pretraining import PretrainingConfig
from fewstep.experiments.repeat.procedure import RepeatResult, repeat
from fewstep.experiments.run import Run
from fewstep.experiments.workers import count_workers
from fewstep.recipes import RECIPES, differences, from_json
from fewstep.training.device import device_here, prepare_device

OLD = Path(__file__).parents[1] / "fixtures" / "runs-0.1.0" / "meta-sgd-sinusoid"
ELSEWHERE = "cuda:77"
"""A device of another machine, whatever this one has."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run that was stopped after 10 of 20 meta-steps on a GPU that is not here."""
    copied = Path(shutil.copytree(OLD, tmp_path / "run"))
    config = json.loads((copied / "config.json").read_text()) | {"device": ELSEWHERE}
    (copied / "config.json").write_text(json.dumps(config))
    return copied


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def one_line(told: list[str]) -> bool:
    return [line for line in told if ELSEWHERE in line] == [
        "trained on cuda:77, which this machine does not have: going on with cpu, to other last digits"
    ]


def test_it_opens_and_scores_as_on_its_own_machine(folder: Path) -> None:
    told: list[str] = []
    run = Run.open(folder, told.append)
    stored = json.loads((OLD / "scores.json").read_text())
    found = {name: float(values.mean()) for name, values in run.test().scores.items()}
    assert found == pytest.approx(stored, abs=1e-6)
    assert one_line(told)
    assert from_json(folder / "config.json").device == ELSEWHERE, "what it was trained on stays written"


def test_it_resumes(folder: Path) -> None:
    told: list[str] = []
    run = Run.resume(folder, told.append)
    assert run.train().state.step == 20
    assert one_line(told)
    stored = json.loads((OLD / "scores_resumed.json").read_text())
    assert {n: float(v.mean()) for n, v in run.test().scores.items()} == pytest.approx(stored, abs=1e-6)


def test_its_environment_says_of_every_resumption_where_it_went_on(folder: Path) -> None:
    began = {"device": ELSEWHERE, "threads": torch.get_num_threads() + 1, "versions": {"torch": "2.0.0"}}
    (folder / "environment.json").write_text(json.dumps(began))
    for number in (1, 2):
        told: list[str] = []
        run = Run.resume(folder, told.append)
        with pytest.raises(KeyboardInterrupt):
            run.train(interrupted)
        facts = read_json(folder / "environment.json")
        moves = facts.pop("continued")
        assert [(move["step"], move["device"], move["threads"]) for move in moves] == [
            (10, "cpu", torch.get_num_threads())
        ] * number
        assert moves[-1]["versions"]["torch"] == torch.__version__
        assert facts == began
        differs = [line for line in told if "torch: 2.0.0 before" in line and "threads:" in line]
        assert len(differs) == (number == 1), "what is as it was at the last resumption is no news"
    run = Run.resume(folder)
    run.train()
    before = (folder / "environment.json").read_bytes()
    Run.resume(folder).train()
    assert (folder / "environment.json").read_bytes() == before, "what has ended is not resumed"


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_it_predicts(folder: Path) -> None:
    told: list[str] = []
    stored = json.loads((OLD / "predictions.json").read_text())
    x, y, queries = (np.array(stored[name]) for name in ("x", "y", "queries"))
    learned = fewstep.load(folder, note=told.append).fit(x.astype(np.float32).reshape(-1, 1), y)
    assert isinstance(learned, fewstep.FewShotRegressor)
    np.testing.assert_allclose(learned.predict(queries.reshape(-1, 1)), stored["predictions"], atol=1e-6)
    assert one_line(told)


def test_it_is_compared(folder: Path, tmp_path: Path) -> None:
    told: list[str] = []
    shutil.copytree(OLD, tmp_path / "here")
    found = compare([folder, tmp_path / "here"], out=tmp_path / "out", tasks=4, note=told.append)
    first, second = found.rows
    np.testing.assert_array_equal(first.scores, second.scores)
    assert one_line(told), "once, though it is opened twice"


@pytest.mark.parametrize(
    "device",
    [
        [],
        *(pytest.param(["--device", name], marks=pytest.mark.slow) for name in ("auto", "cpu")),
        ["--device", ELSEWHERE],
    ],
)
def test_commands_take_a_device(
    folder: Path, tmp_path: Path, device: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    few = tmp_path / "few.csv"
    few.write_text("x,y\n0,1\n1,2\n")
    for command in (
        ["evaluate", str(folder), "--tasks", "4"],
        ["compare", str(folder), "--tasks", "4", "--out", str(tmp_path / "compared")],
        ["predict", str(folder), "--support", str(few), "--query", str(few)],
        ["train", "--resume", str(folder)],
    ):
        if ELSEWHERE in device and command[0] != "train":  # a run's own device is what it goes on with, where it can
            with pytest.raises(SystemExit, match="2"):
                main([*command, *device])
            assert "device 'cuda:77' cannot be used here" in " ".join(capsys.readouterr().err.split())
            continue
        main([*command, *device])
        printed = capsys.readouterr()
        said = printed.err if command[0] == "predict" else printed.out
        assert (ELSEWHERE in " ".join(said.split())) == (device != ["--device", "cpu"]), command
        if command[0] == "predict":
            assert printed.out.startswith("query,mean"), "remarks are apart from what programs read"


def test_auto_is_the_gpu_where_there_is_one_and_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {recipe().device for recipe in RECIPES.values()} == {"auto"}
    assert PretrainingConfig.__dataclass_fields__["device"].default == "auto"
    assert prepare_device("auto").device == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert (device_here("auto"), device_here("cpu"), device_here("cuda:1")) == ("cuda", "cpu", "cuda:1")
    assert count_workers(None, 1, device_here("auto")) == 1


def test_a_run_keeps_the_device_that_it_was_begun_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = RECIPES["maml-sinusoid"]()
    short = replace(config.training, steps=2, validate_every=2, validation_tasks=2, compile="off")
    config = replace(config, training=short, testing=replace(config.testing, tasks=2, shots=(), steps=()), threads=1)
    run = Run.create(config, tmp_path / "run")
    assert run.config.device == from_json(tmp_path / "run" / "config.json").device == "cpu"
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["device"] == "cpu"
    Run.continued(config, tmp_path / "run").train()
    with pytest.raises(ValueError, match="device: cpu there, cuda here"):
        Run.continued(replace(config, device="cuda"), tmp_path / "run")
    (tmp_path / "run").rename(tmp_path / "seed-0")
    monkeypatch.setattr(RepeatResult, "picture", lambda *_: b"")
    for _ in range(2):  # where a repetition stands on one device, the same command goes on
        repeat(config, seeds=[0], out=tmp_path, workers=1)


def test_settings_that_mean_the_same_do_not_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    kept = {"device": "cpu", "data.path": "features.npz", "seed": 0}
    assert not differences(kept, kept | {"device": "auto", "data.path": str(tmp_path / "features.npz")})
    assert differences(kept, kept | {"device": "cuda"}) == "device: cpu there, cuda here"
    assert "data.path" in differences(kept, kept | {"data.path": "other.npz"})
