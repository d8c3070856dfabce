"""What is refused leaves nothing behind, and the corrected command runs in the same folder."""

from pathlib import Path

import numpy as np
import pytest
from other_process import at_work
from PIL import Image

from fewstep.commands.main import main
from fewstep.experiments.folder import all_or_nothing
from fewstep.experiments.run import Run

SHORT = [
    *("--training.steps", "2", "--training.validate-every", "2", "--training.validation-tasks", "2"),
    *("--training.tasks", "2", "--testing.tasks", "2", "--training.compile", "off", "--data.queries", "2"),
]
LEO = ["--method.latent-rate", "0.1"]


@pytest.fixture(autouse=True)
def features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six classes a split of ten vectors, and the working directory beside them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEWSTEP_CACHE", str(tmp_path / "cache"))
    rows = np.random.default_rng(0).normal(size=(18, 10, 8)).astype(np.float32)
    np.savez(tmp_path / "mine.npz", features=rows, split=np.repeat([0, 1, 2], 6).astype(np.uint8))
    return tmp_path / "mine.npz"


def refused(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert message in " ".join(capsys.readouterr().err.split())


TRAIN = ["train", "leo-features-1shot", *SHORT, *LEO, "--out", "new/run"]


@pytest.mark.parametrize(
    ("wrong", "right", "message"),
    [
        ([], ["--data.path", "mine.npz"], "are yours to give"),
        (["--data.path", "mine.npz", "--testing.shots", "11"], ["--data.path", "mine.npz"], "11"),
        *(
            pytest.param(["--data.path", *wrong], ["--data.path", "mine.npz"], wrong[-1], marks=pytest.mark.slow)
            for wrong in (
                ["other.npz"],
                ["mine.npz", "--data.ways", "7"],
                ["mine.npz", "--testing.queries", "30"],
                ["mine.npz", "--training.rate", "-1"],
                ["mine.npz", "--device", "cuda:77"],
            )
        ),
    ],
)
def test_a_training(wrong: list[str], right: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    refused([*TRAIN, *wrong], message, capsys)
    assert not Path("new").exists()
    main([*TRAIN, *right])
    assert Path("new/run/report.md").exists()


def test_a_training_that_fails_in_its_first_steps(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As one does whose numbers overflow before there is a checkpoint."""

    def failing(*_: object) -> None:
        raise FloatingPointError("not finite")

    Path("new/run").mkdir(parents=True)
    monkeypatch.setattr("fewstep.training.trainer.Trainer.step", failing)
    refused([*TRAIN, "--data.path", "mine.npz"], "not finite", capsys)
    assert list(Path("new/run").iterdir()) == [], "an empty folder of the user's stays"


def test_what_was_there_before_and_what_was_trained_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("new/run").mkdir(parents=True)
    Path("new/run/notes.txt").write_text("mine")
    refused([*TRAIN, "--data.path", "mine.npz"], "is not empty", capsys)
    assert [path.name for path in Path("new/run").iterdir()] == ["notes.txt"]

    def failing(*_: object, **__: object) -> None:
        raise ValueError("the disk is full")

    monkeypatch.setattr(Run, "record", failing)
    refused([*TRAIN[:-1], "trained", "--data.path", "mine.npz"], "the disk is full", capsys)
    assert Path("trained/best.safetensors").exists()


@pytest.mark.parametrize("command", ["repeat", "ablate"])
def test_many_runs(command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    number = ["--seeds", "1"] if command == "repeat" else ["--trials", "1"]
    arguments = [command, "leo-features-1shot", *SHORT, *LEO, *number, "--out", "new/many"]
    refused([*arguments, "--data.path", "mine.npz", "--testing.shots", "11"], "11", capsys)
    assert not Path("new").exists()
    refused([*arguments, "--data.path", "other.npz"], "other.npz", capsys)
    assert not Path("new").exists()
    with at_work(Path("new/many")):  # two processes: the second takes nothing away
        Path("new/many/mark").touch()
        refused([*arguments, "--data.path", "mine.npz"], "another process is at work", capsys)
    assert Path("new/many/mark").exists()


def test_a_repetition_refused_by_its_runs(quick: None, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["repeat", "leo-features-1shot", *SHORT, *LEO, "--seeds", "1", "--out", "new", "--data.path", "mine.npz"]
    refused([*command, "--training.rate", "-1"], "-1", capsys)
    assert not Path("new").exists()
    main(command)
    assert Path("new/repeat.md").exists()


def test_a_search(quick: None, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["search", "leo-features-1shot", *SHORT, *LEO, "--trials", "1", "--workers", "1", "--out", "new/search"]
    command += ["--data.path", "mine.npz"]
    refused([*command, "--data.queries", "30"], "30", capsys)
    refused([*command, "--storage", "nodatabase://x"], "cannot be opened", capsys)
    assert not Path("new").exists()
    main(command)
    assert Path("new/search/search.md").exists()


def test_a_comparison(capsys: pytest.CaptureFixture[str]) -> None:
    refused(["compare", "maml-sinusoid", "maml-oscillations", "--out", "new"], "do not have the same tasks", capsys)
    refused(
        ["compare", "maml-sinusoid", "reptile-sinusoid", "--reference", "x", "--out", "new"], "no method 'x'", capsys
    )
    assert not Path("new").exists()


def test_a_pretraining(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def draw(name: str) -> None:
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i, pixels in enumerate(np.random.default_rng(0).integers(0, 255, (4, 20, 20, 3), np.uint8)):
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{i}.png")

    draw("train/one")
    draw("val/three")
    command = ["pretrain", "photos", "--network", "convnet", "--size", "16", "--epochs", "1", "--out", "new/net"]
    command += ["--network.widths", "4", "8", "--network.pools", "2", "--validation-tasks", "2", "--threads", "1"]
    refused(command, "has 1 class; at least 2 are needed", capsys)
    assert not Path("new").exists()
    draw("train/two")
    main([*command, "--batch", "4"])
    assert Path("new/net/report.md").exists()


def beginning(folder: Path) -> None:
    with all_or_nothing(folder):
        (folder / "config.json").touch()
        raise KeyboardInterrupt


def test_an_interrupted_beginning_can_go_on(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        beginning(tmp_path / "run")
    assert (tmp_path / "run" / "config.json").exists()
