"""A run whose files were damaged, or whose data were replaced: an error that says how to go on, and that way works."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import fewstep
from fewstep.commands.main import main
from fewstep.data import Dataset
from fewstep.data.fingerprint import fingerprint
from fewstep.data.storage import files
from fewstep.evaluation import Evaluation
from fewstep.experiments.begun import unfinished
from fewstep.experiments.folder import stored_config
from fewstep.experiments.repeat.procedure import repeat
from fewstep.experiments.report import report
from fewstep.experiments.run import Run
from fewstep.recipes import RECIPES, Config
from fewstep.training import State

BEST, LAST, PREVIOUS = (f"{name}.safetensors" for name in ("best", "last", "previous"))


def tiny(recipe: str = "maml-sinusoid", seed: int = 0) -> Config:
    config = RECIPES[recipe]()
    training = replace(config.training, steps=6, validate_every=2, validation_tasks=2, tasks=2, compile="off")
    testing = replace(config.testing, tasks=2, shots=(), steps=())
    return replace(config, training=training, testing=testing, device="cpu", threads=1, seed=seed)


def stop(state: State, metrics: dict[str, float]) -> None:
    if state.step == 5:
        raise KeyboardInterrupt


def begun(folder: Path, config: Config | None = None) -> Path:
    """A run that was stopped after five meta-steps of six: its last checkpoint is of four, and that before of two."""
    with pytest.raises(KeyboardInterrupt):
        Run.create(config or tiny(), folder).train(stop)
    return folder


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Such a run, and one that was not stopped."""
    torch.set_num_threads(1)
    whole = tmp_path_factory.mktemp("whole") / "run"
    Run.create(tiny(), whole).train()
    return begun(tmp_path_factory.mktemp("stopped") / "run"), whole


@pytest.fixture
def run(stopped: tuple[Path, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(stopped[0], tmp_path / "run"))


def refused(command: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The line that a command ends with."""
    capsys.readouterr()
    with pytest.raises(SystemExit, match="2"):
        main(command)
    line = capsys.readouterr().err.strip()
    assert line.startswith("error:")
    assert "\n" not in line
    return line


def assert_same_end(ours: Path, theirs: Path) -> None:
    for name in (BEST, LAST):
        found, expected = load_file(ours / name), load_file(theirs / name)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], expected[key]) for key in expected), name


def flipped(content: bytes) -> bytes:
    at = len(content) - 3
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "flipped": flipped,
    "truncated": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "foreign": lambda content: b"\x80\x04 something else",
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_checkpoint_names_the_older_one_which_goes_on_to_the_same_bits(
    kind: str, run: Path, stopped: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    last = run / LAST
    last.write_bytes(DAMAGE[kind](last.read_bytes()))
    told = refused(["train", "--resume", str(run)], capsys)
    assert f"{last} is damaged" in told
    assert (
        f"delete it and give the same command again, or --resume {run}: training then goes on from {PREVIOUS}" in told
    )
    assert "of step 2" in told
    last.unlink()
    Run.resume(run).train()
    assert_same_end(run, stopped[1])
    assert (run / "metrics.csv").read_bytes() == (stopped[1] / "metrics.csv").read_bytes()


def test_where_all_are_damaged_training_begins_anew_to_the_same_bits(
    run: Path, stopped: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    for name in (LAST, PREVIOUS):
        (run / name).write_bytes(flipped((run / name).read_bytes()))
    told = refused(["train", "--resume", str(run)], capsys)
    assert f"or delete {LAST}, {PREVIOUS}, {BEST} in {run}" in told
    for name in (BEST, LAST, PREVIOUS):
        (run / name).unlink()
    Run.resume(run).train()
    assert_same_end(run, stopped[1])


@pytest.mark.parametrize("kind", [*DAMAGE, "gone"])
def test_a_damaged_best_checkpoint_is_found_before_training_goes_on_and_wherever_it_is_used(
    kind: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best = run / BEST
    content = DAMAGE.get(kind, flipped)(best.read_bytes())
    best.unlink()
    if kind != "gone":
        best.write_bytes(content)
    few = run / "few.csv"
    few.write_text("x,y\n0,1\n1,2\n")
    assert str(best) in refused(["train", "--resume", str(run)], capsys)
    for command in (["evaluate", str(run)], ["predict", str(run), "--support", str(few), "--query", str(few)]):
        assert BEST in refused(command, capsys)


def test_checkpoints_of_another_run_are_refused(run: Path, tmp_path: Path) -> None:
    other = begun(tmp_path / "other", tiny(seed=1))
    for name in (LAST, BEST):
        own = (run / name).read_bytes()
        shutil.copy(other / name, run / name)
        with pytest.raises(ValueError, match=f"{name} belongs to a run of other settings or data"):
            Run.resume(run).train()
        if name == LAST:
            (run / name).write_bytes(own)
    with pytest.raises(ValueError, match=f"{BEST} belongs to a run of other settings or data"):
        fewstep.load(run)


def test_results_of_other_meta_parameters_are_named_and_left_out(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    main(["evaluate", str(run), "--tasks", "2", "--out", "early"])  # of step 4 of 6
    Run.resume(run).train()
    tested = Run.open(run)
    tested.record(tested.test())
    other = begun(tmp_path / "other", tiny(seed=1))
    whose = Run.open(other)
    whose.record(whose.test(), "theirs")
    theirs = (other / "theirs.json").read_text()
    (run / "theirs.json").write_text(theirs)
    report(run)
    told = (run / "report.md").read_text()
    assert "### test\n" in told
    assert f"{run / 'early.json'} is of other meta-parameters than {BEST}: it is left out." in told
    assert f"{run / 'theirs.json'} is of another run, or of other settings or data: it is left out." in told
    assert "### early" not in told
    assert "### theirs" not in told
    main(["export", str(run), str(tmp_path / "mine")])
    assert "| adapted |" in (tmp_path / "mine.md").read_text()
    (run / "test.json").write_text(theirs)
    caplog.clear()
    main(["export", str(run), str(tmp_path / "mine")])
    assert f"{run / 'test.json'} is of another run" in caplog.text
    assert "It has not been tested." in (tmp_path / "mine.md").read_text()
    flipped = theirs.replace('"tasks": 2', '"tasks": 3', 1)
    (run / "test.json").write_text(flipped)
    with pytest.raises(ValueError, match=r"test.json is damaged \(its contents do not match its digest\)"):
        report(run)
    old = json.loads(theirs)
    del old["of"], old["digest"]  # as results were before they knew
    (run / "test.json").write_text(json.dumps(old))
    main(["export", str(run), str(tmp_path / "mine")])
    assert "| adapted |" in (tmp_path / "mine.md").read_text()


def test_a_record_of_the_machine_that_was_changed_is_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = run / "environment.json"
    file.write_text(file.read_text().replace('"threads": 1', '"threads": 7', 1))
    assert f"{file} is damaged (its contents do not match its digest)" in refused(
        ["train", "--resume", str(run)], capsys
    )


def test_settings_that_were_changed_afterwards_are_refused(run: Path) -> None:
    config = json.loads((run / "config.json").read_text())
    config["training"]["rate"] *= 2
    (run / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="belongs to a run of other settings or data"):
        Run.resume(run).train()
    with pytest.raises(ValueError, match="belongs to a run of other settings or data"):
        Run.open(run)


def without_digest(path: Path, change: Callable[[dict[str, torch.Tensor], dict[str, int]], None]) -> None:
    """A checkpoint as they were before there was a digest, with other contents."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        state = json.loads(file.metadata()["fewstep"])
    tensors = load_file(path)
    change(tensors, state)
    path.unlink()
    save_file(tensors, path, {"fewstep": json.dumps(state)})


def without(tensors: dict[str, torch.Tensor], part: str) -> None:
    for name in [name for name in tensors if part in name]:
        del tensors[name]


def replaced(tensors: dict[str, torch.Tensor], part: str, value: Callable[[torch.Tensor], torch.Tensor]) -> None:
    name = next(name for name in sorted(tensors) if part in name)
    tensors[name] = value(tensors[name])


CONTENTS: dict[str, tuple[Callable[[dict[str, torch.Tensor], dict[str, int]], None], str]] = {
    "no moments": (lambda tensors, state: without(tensors, "optimiser/"), "lacks the optimiser's moments"),
    "no second moments": (lambda tensors, state: without(tensors, "exp_avg_sq"), "lacks the optimiser's moments"),
    "moments of another shape": (
        lambda tensors, state: replaced(tensors, "exp_avg_sq", lambda moment: moment[..., :1].clone()),
        "has them of another shape",
    ),
    "no weights": (lambda tensors, state: without(tensors, "learner/"), "belongs to another learner"),
    "weights that are not numbers": (
        lambda tensors, state: replaced(tensors, "learner/", lambda weight: weight * np.nan),
        "with NaN or infinity",
    ),
    "a step past the end": (lambda tensors, state: state.update(step=7), "after 7 steps, but training has 6"),
    "a step that is none": (lambda tensors, state: state.update(step="4"), "its step is '4'"),
    "another counter": (lambda tensors, state: state.update(epoch=4), "its counters are ['epoch']"),
}


@pytest.mark.parametrize("kind", CONTENTS)
def test_a_checkpoint_without_a_digest_is_looked_at_too(
    kind: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, told = CONTENTS[kind]
    without_digest(run / LAST, change)
    line = refused(["train", "--resume", str(run)], capsys)
    assert told in line
    assert str(run / LAST) in line


def test_a_best_checkpoint_of_before_is_not_taken_for_the_best(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As in a copy that was made while the run trained."""
    without_digest(run / BEST, lambda tensors, state: state.update(step=1, best_step=1))
    told = f"{run / BEST} is of step 1, and {LAST} says that step 2 was the best"
    assert told in refused(["train", "--resume", str(run)], capsys)
    assert told in refused(["evaluate", str(run)], capsys)
    assert told in refused(["export", str(run), str(run.parent / "mine")], capsys)
    (run / LAST).unlink()
    assert f"as far as is known ({LAST} is gone)" in unfinished(run)
    assert "best so far, at step 1" in unfinished(run), "as its file says, and not the checkpoint before the last"
    assert told.replace(LAST, PREVIOUS) in refused(["evaluate", str(run)], capsys)


def test_a_folder_that_is_moved_while_it_trains_goes_on_where_it_is(tmp_path: Path, stopped: tuple[Path, Path]) -> None:
    run, moved = tmp_path / "run", tmp_path / "moved"

    def move(state: State, metrics: dict[str, float]) -> None:
        if state.step == 3:
            run.rename(moved)

    begun = Run.create(tiny(), run)
    with pytest.raises(ValueError, match=r"run was moved or removed while this process worked in it"):
        begun.train(move)
    with pytest.raises(ValueError, match=r"run was moved or removed meanwhile"):
        begun.record(begun.test())
    assert not run.exists()
    Run.resume(moved).train()
    assert_same_end(moved, stopped[1])


def test_what_is_written_replaces_only_what_is_of_its_kind(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = (run / BEST).read_bytes()
    assert "best.safetensors is there, and holds no model" in refused(["export", str(run), str(run / BEST)], capsys)
    assert (run / BEST).read_bytes() == kept
    (tmp_path / "README.md").write_text("# Mine")
    assert "README.md is there, and is no card" in refused(["export", str(run), str(tmp_path / "README")], capsys)
    assert [path.name for path in tmp_path.glob("README*")] == ["README.md"]
    for again in (False, True):
        main(["export", str(run), str(tmp_path / "mine")])
        assert ("is replaced" in " ".join(capsys.readouterr().out.split())) == again
    rows = tmp_path / "rows.csv"
    rows.write_text("x,y\n0,0\n1,1\n")
    predict = ["predict", str(run), "--support", str(rows), "--query", str(rows), "--out"]
    assert "rows.csv is there, and holds no predictions" in refused([*predict, str(rows)], capsys)
    for _ in range(2):
        main([*predict, str(tmp_path / "found.csv")])


def test_names_of_bytes_that_are_no_text_are_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = os.fsdecode(b"caf\xe9")
    assert r"'caf\udce9' is a name whose bytes are no UTF-8" in refused(["evaluate", name], capsys)
    with pytest.raises(ValueError, match=r"no UTF-8 \(in '.*caf.udce9"):
        files.write_atomically(run / "network.json", files.json_text({"class_names": ["tea", name]}))
    assert not (run / "network.json").exists()


def test_it_opens_where_nothing_is_wrong_with_it(run: Path, stopped: tuple[Path, Path]) -> None:
    for name in (LAST, BEST):
        without_digest(run / name, lambda tensors, state: state.pop("log"))
    Run.resume(run).train()
    assert_same_end(run, stopped[1])


def test_a_training_that_has_not_ended_is_used_as_it_is_and_said_to_be(run: Path, stopped: tuple[Path, Path]) -> None:
    told: list[str] = []
    opened = Run.open(run, told.append)
    assert told == [f"{run} has not finished training: it is used as it was best so far, at step 2"]
    assert opened.tested is not None
    assert opened.tested.step == 2
    fewstep.load(run, note=told.append)
    assert told[0] == told[1]
    Run.open(stopped[1], told.append)
    assert len(told) == 2
    opened.record(opened.test(), "early")
    main(["export", str(run), str(run.parent / "mine")])
    for page in (run / "report.md", run.parent / "mine.md"):  # which outlive what is said on a terminal
        assert "has not finished training: it is used as it was best so far, at step 2." in page.read_text()
    whole = Run.open(Path(shutil.copytree(stopped[1], run.parent / "whole")))
    whole.record(whole.test(), "late")
    assert "has not finished" not in report(whole.folder).read_text()


def test_an_evaluation_that_was_killed_before_its_end_leaves_its_name_free(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", str(run), "--tasks", "2", "--out", "mine"]
    rename = os.replace

    def killed(source: Path, target: Path) -> None:
        rename(source, target)
        if Path(target).name.startswith("mine"):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace", killed)
        with pytest.raises(SystemExit, match="130"):
            main(command)
    left = sorted(path.name for path in run.iterdir() if path.name.startswith("mine"))
    main(command)
    assert left == ["mine_tasks.csv"]
    assert "### mine" in (run / "report.md").read_text()
    assert "mine.json is there already" in refused(command, capsys)
    (run / "yours_tasks.csv").write_text("what else lies there\n")
    assert "yours_tasks.csv is there already" in refused([*command[:-1], "yours"], capsys)


def test_an_evaluation_does_not_replace_one_that_came_meanwhile(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    test = Run.test

    def meanwhile(self: Run, **options: object) -> Evaluation:
        self.record(test(self, tasks=3), "mine")
        return test(self, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Run, "test", meanwhile)
    refused(["evaluate", str(run), "--tasks", "2", "--out", "mine"], capsys)
    assert json.loads((run / "mine.json").read_text())["tasks"] == 3


def test_weights_that_are_no_numbers_predict_nothing(run: Path) -> None:
    without_digest(run / BEST, lambda t, state: replaced(t, "learner/", lambda weight: weight * np.nan))
    for opens in (Run.open, fewstep.load):
        with pytest.raises(ValueError, match="with NaN or infinity, so that it can predict nothing"):
            opens(run)


@pytest.mark.parametrize("kind", ["cut at a line", "cut in a line", "changed"])
def test_a_log_that_was_cut_is_told_and_training_goes_on_without_it(
    kind: str, run: Path, stopped: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    log = run / "metrics.csv"
    text = log.read_text()
    lines = text.splitlines(keepends=True)
    changed = {
        "cut at a line": "".join(lines[:-1]),
        "cut in a line": text[:-4],
        "changed": text.replace(",validation,", ",train,"),
    }
    log.write_text(changed[kind])
    told = refused(["train", "--resume", str(run)], capsys)
    assert f"{log} is damaged" in told
    assert "delete it: training goes on to the same bits, with a log from here on" in told
    log.unlink()
    Run.resume(run).train()
    assert_same_end(run, stopped[1])
    assert log.read_text().startswith("step,split,name,value\n6,")


# -- data --------------------------------------------------------------------------------------------------------------


def features(path: Path, seed: int) -> None:
    source = np.random.default_rng(seed)
    rows, labels = source.normal(size=(60, 8)).astype(np.float32), np.repeat(np.arange(15), 4)
    np.savez(path, features=rows, labels=labels, split=np.repeat(["train", "val", "test"], 20))


@pytest.fixture
def on_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    monkeypatch.setenv("FEWSTEP_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "features.npz"
    features(path, 0)
    config = tiny("leo-features-1shot")
    data, testing = replace(config.data, path=str(path), queries=1), replace(config.testing, queries=1)
    return begun(tmp_path / "run", replace(config, data=data, testing=testing)), path


def test_data_that_were_replaced_by_others_of_the_same_shape_are_refused(
    on_features: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, path = on_features
    before = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
    features(path, 1)
    for command in (["train", "--resume", str(folder)], ["evaluate", str(folder)], ["compare", str(folder)]):
        if command[0] == "compare":
            command += ["--out", str(folder.parent / "compared")]
        told = refused(command, capsys)
        assert "have changed since it was begun: train (was " in told
        assert str(path) in told
    assert {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()} == before
    features(path, 0)
    assert Run.resume(folder).train().state.finished
    main(["evaluate", str(folder)])


def test_a_repetition_takes_no_more_seeds_on_other_data(on_features: tuple[Path, Path], tmp_path: Path) -> None:
    folder, path = on_features
    config = stored_config(folder)
    shutil.copytree(folder, tmp_path / "out" / "seed-0")
    features(path, 1)
    with pytest.raises(ValueError, match="have changed since it was begun: train"):
        repeat(config, seeds=(0, 1), out=tmp_path / "out", workers=1)
    assert not (tmp_path / "out" / "seed-1").exists()
    (tmp_path / "out" / "seed-0").rename(tmp_path / "out" / "seed-7")
    with pytest.raises(ValueError, match="seed-7 holds the run of seed 0: rename it to seed-0"):
        repeat(config, seeds=(7,), out=tmp_path / "out", workers=1)


def test_a_row_of_the_test_is_enough(on_features: tuple[Path, Path]) -> None:
    folder, path = on_features
    arrays = dict(np.load(path))
    arrays["features"][-1, -1] = np.nextafter(arrays["features"][-1, -1], np.float32(9))
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=r"begun: test \(was "):
        Run.open(folder)


@pytest.mark.parametrize("rows", [torch.rand(40, 6), torch.randint(0, 255, (40, 3, 8, 8), dtype=torch.uint8)])
def test_a_fingerprint_is_of_what_is_there_wherever_it_lies(
    rows: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fewstep.data.fingerprint.LOOKED_AT", 5000)  # of the images about half
    labels = np.repeat(np.arange(8), 5)
    known = fingerprint(Dataset.from_labels(rows, labels))
    shuffled = np.argsort(np.tile(np.arange(5), 8), kind="stable")
    assert known == fingerprint(Dataset.from_labels(rows[shuffled].numpy(), labels[shuffled]))
    other = rows.clone()
    other[-1].add_(1)
    assert known != fingerprint(Dataset.from_labels(other, labels))
    assert known != fingerprint(Dataset.from_labels(rows, labels + 1))
    assert known != fingerprint(Dataset.from_labels(rows.flip(0), labels))
