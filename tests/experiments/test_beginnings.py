"""A run that is killed in its beginning, at every one of its writes, and two processes that come to one folder."""

import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from other_process import at_work
from PIL import Image

from fewstep.commands.main import main
from fewstep.data.images.by_name import ImageData
from fewstep.data.storage import files
from fewstep.data.storage.lock import LOCK, AtWork, alone_in
from fewstep.experiments.folder import new_folder
from fewstep.experiments.pretraining import PretrainingConfig, PretrainingRun
from fewstep.experiments.run import Run
from fewstep.recipes import RECIPES, Config
from fewstep.training.pretraining.presets import preset

TRAIN = [
    *("train", "maml-sinusoid", "--training.steps", "2", "--training.validate-every", "2", "--training.tasks", "2"),
    *("--training.validation-tasks", "2", "--testing.tasks", "2", "--training.compile", "off", "--threads", "1"),
]
PRETRAIN = [
    *("pretrain", "photos", "--network", "convnet", "--size", "16", "--epochs", "1", "--batch", "4"),
    *("--network.widths", "4", "8", "--network.pools", "2", "--validation-tasks", "2", "--threads", "1"),
]


@pytest.fixture(autouse=True)
def _photographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEWSTEP_CACHE", str(tmp_path / "cache"))
    for name in ("train/one", "train/two", "val/three"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i, pixels in enumerate(np.random.default_rng(0).integers(0, 255, (4, 20, 20, 3), np.uint8)):
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{i}.png")


def stop(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def begun(command: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin, and stop before the training."""
    with monkeypatch.context() as patch:
        patch.setattr(Run, "train", stop)
        patch.setattr("fewstep.training.pretraining.pretrainer.Pretrainer.run", stop)
        with pytest.raises(SystemExit, match="130"):
            main([*command, "--out", str(folder)])


def short() -> Config:
    config = RECIPES["maml-sinusoid"]()
    training = replace(config.training, steps=1, validate_every=1, validation_tasks=2, tasks=2, compile="off")
    return replace(config, training=training, threads=1)


def begin_run(folder: Path) -> None:
    Run.create(short(), folder)


def begin_pretraining(folder: Path) -> None:
    training = replace(preset("convnet", 16), epochs=1)
    PretrainingRun.create(PretrainingConfig(ImageData("photos", size=16), training, threads=1), folder)


@pytest.mark.parametrize(
    ("begin", "resume", "last"),
    [(begin_run, Run.resume, "config.json"), (begin_pretraining, PretrainingRun.resume, "pretraining.json")],
    ids=["train", "pretrain"],
)
def test_killed_at_each_write(
    begin: Callable[[Path], None],
    resume: Callable[[Path], object],
    last: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole, rename = tmp_path / "whole", os.replace
    written: list[str] = []

    def noted(source: Path, target: Path) -> None:
        rename(source, target)
        written.append(Path(target).name)

    monkeypatch.setattr(files.os, "replace", noted)
    begin(whole)
    sequence = [name for name in written if (whole / name).exists()]
    assert sequence[-1] == last
    assert len(sequence) >= 3
    for number in range(len(sequence)):
        for half in (False, True):
            folder = tmp_path / f"killed-{number}-{half}"
            folder.mkdir()
            (folder / LOCK).write_text("process 7")
            for name in sequence[:number]:
                shutil.copy(whole / name, folder)
            if half:
                content = (whole / sequence[number]).read_bytes()
                (folder / f".{sequence[number]}.0a1b2c3d.part").write_bytes(content[: len(content) // 2])
            said = f"^{folder} was not begun to its end: nothing is lost; give the .* with --out {folder}"
            with pytest.raises(ValueError, match=said):
                resume(folder)
            begin(folder)
            resume(folder)
            assert sorted(path.name for path in folder.iterdir()) == sorted([LOCK, *sequence])


def test_a_stop_in_a_beginning_is_followed_by_the_same_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("fewstep.experiments.run.environment", stop)
        with pytest.raises(SystemExit, match="130"):
            main(TRAIN)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("stopped; ")]
    again = line.partition("continue with: fewstep ")[2].split()
    assert again[:-1] == [*TRAIN, "--out"]
    main(again)
    assert Path(again[-1], "report.md").exists()


@pytest.mark.parametrize("resumed", [False, True], ids=["out", "resume"])
@pytest.mark.parametrize("command", [TRAIN, PRETRAIN], ids=["train", "pretrain"])
def test_a_second_process_is_refused_and_touches_nothing(
    command: list[str],
    resumed: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "shared"
    if resumed:
        begun(command, folder, monkeypatch)
    with at_work(folder):
        (folder / ".last.safetensors.0a1b2c3d.part").touch()  # which the first is writing
        before = {path: path.read_bytes() for path in folder.iterdir()}
        with pytest.raises(SystemExit, match="2"):
            main([command[0], "--resume", str(folder)] if resumed else [*command, "--out", str(folder)])
        assert {path: path.read_bytes() for path in folder.iterdir()} == before
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert f"another process is at work in {folder} (process 7 on there: fewstep train): wait for it, or stop" in told
    (folder / ".last.safetensors.0a1b2c3d.part").unlink()


def test_what_only_reads_a_folder_deletes_nothing_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun(PRETRAIN, tmp_path / "net", monkeypatch)
    with at_work(tmp_path / "net"):
        (half := tmp_path / "net" / ".last.safetensors.0a1b2c3d.part").touch()
        PretrainingRun.open(tmp_path / "net")
        assert half.exists()


def test_a_library_that_trains_twice_in_one_folder(tmp_path: Path) -> None:
    run = Run.create(short(), tmp_path / "run")
    tries: list[Callable[[], object]] = [run.train, lambda: Run.resume(tmp_path / "run")]
    with at_work(tmp_path / "run"):
        for attempt in tries:
            with pytest.raises(AtWork, match="another process is at work"):
                attempt()
    run.train()


def test_the_lock_of_another_user_keeps_away_and_lets_in_like_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with alone_in(tmp_path):
        pass
    opened = Path.open

    def open_(self: Path, mode: str = "r", *others: Any, **options: Any) -> Any:
        if self.name == LOCK and mode == "ab":
            raise PermissionError
        return opened(self, mode, *others, **options)

    with at_work(tmp_path):
        monkeypatch.setattr(Path, "open", open_)
        with pytest.raises(AtWork), alone_in(tmp_path):
            pass
    with alone_in(tmp_path), ThreadPoolExecutor(1) as pool, pytest.raises(AtWork):
        pool.submit(lambda: alone_in(tmp_path).__enter__()).result()


def test_folders_that_are_begun_at_once_are_distinct(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: new_folder(tmp_path / "runs", "maml"), range(24)))
    assert len(set(folders)) == 24
    assert all(folder.is_dir() for folder in folders)


def test_a_refused_training_leaves_no_folder_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([*TRAIN, "--device", "cuda:77"])
    assert not Path("runs").exists()


def test_a_lock_that_was_removed_keeps_nobody_away_and_lets_nobody_in(tmp_path: Path) -> None:
    with alone_in(tmp_path):
        (tmp_path / LOCK).unlink()
        with alone_in(tmp_path / "other"):
            pass
    with at_work(tmp_path), ThreadPoolExecutor(1) as pool, pytest.raises(AtWork):
        pool.submit(lambda: alone_in(tmp_path).__enter__()).result()
    with alone_in(tmp_path), alone_in(tmp_path), ThreadPoolExecutor(1) as pool, pytest.raises(AtWork):
        pool.submit(lambda: alone_in(tmp_path).__enter__()).result()
