"""The Python of the README and of the pages on pre-training and uncertainty runs, shortened where it says how long."""

from pathlib import Path
from typing import Any

import numpy as np
import pages
import pytest
from cases import classification_tasks

from fewstep.commands.main import main
from fewstep.core import Batch
from fewstep.data import embeddings

README = pages.ROOT / "README.md"
PRETRAINING, UNCERTAINTY, LEO = (
    README.parent / "docs" / f"{page}.md" for page in ("pretraining", "uncertainty", "leo")
)
SHORTER = {
    "import Pretraining": "import Architecture, Pretraining",
    "Pretraining()": "Pretraining(Architecture(widths=(4, 8), pools=2), epochs=1, batch=1024)",
    "range(1000)": "range(2)",
    "evaluate(method, held_out, 2000)": "evaluate(method, held_out, 100)",
    'rotations=split == "train"': "rotations=False",
}


def test_the_library_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FEWSTEP_CACHE", str(tmp_path))
    blocks = [block.code for block in pages.blocks(README.read_text(encoding="utf-8"))]
    assert len(blocks) == 3
    code = blocks[1]
    for long, short in SHORTER.items():
        assert long in code, f"the README no longer says {long}"
        code = code.replace(long, short)
    exec(compile(code, "README.md", "exec"), {})
    exec(compile(blocks[2], "README.md", "exec"), {})


def test_the_example_for_features_of_ones_own_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    source = np.random.default_rng(0)
    labels = np.repeat(np.arange(24), 25)
    rows = source.normal(size=(24, 8))[labels] + 0.5 * source.normal(size=(600, 8))
    np.savez("features.npz", features=rows, labels=labels)
    code = pages.blocks(README.read_text(encoding="utf-8"))[0].code
    short = "tasks=20, **{'training.steps': 2, 'training.validate_every': 2, 'training.validation_tasks': 10})"
    assert '-5shot").fit(' in code
    exec(compile(code.replace('-5shot").fit(', f'-5shot", {short}.fit('), "README.md", "exec"), {})
    score, shape = capsys.readouterr().out.splitlines()
    assert float(score) > 0.8
    assert shape == "(200, 8)"


def test_the_commands_for_features_of_ones_own_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The three as they are printed, in less time and without a picture."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fewstep.experiments.fit.report.draw", lambda *_: b"")
    source = np.random.default_rng(0)
    labels = np.repeat(np.arange(15), 10)
    rows = 3 * source.normal(size=(15, 4))[labels] + 0.1 * source.normal(size=(150, 4))
    np.savez("features.npz", features=rows, labels=labels)
    of_label = {name: ",".join(map(str, rows[i])) for name, i in (("owl", 0), ("fox", 140))}
    lines = [f"{name},{row}" for name, row in of_label.items()]
    Path("labelled.csv").write_text("\n".join(["label,a,b,c,d", *lines]))
    Path("new.csv").write_text("\n".join(["a,b,c,d", *(",".join(map(str, rows[i])) for i in (141, 1))]))
    section = README.read_text(encoding="utf-8").split("## On features of your own")[1]
    commands = [line.split("#")[0].split()[1:] for line in section.split("```")[1].split("\n") if line]
    assert [words[0] for words in commands] == ["data", "fit", "predict"]
    for words in commands:
        main([{"10": "0.001"}.get(word, word) for word in words])
    answers = capsys.readouterr().out.splitlines()[-2:]
    assert [line.split(",")[1] for line in answers] == ["fox", "owl"]


def test_the_page_on_estimators_prints_what_it_shows() -> None:
    page = README.parent / "docs" / "estimators.md"
    space: dict[str, Any] = {}
    for block in pages.blocks(page.read_text(encoding="utf-8")):
        printed = pages.run(block.code, space, page.name)
        assert pages.agree(printed, block.shown), f"{printed}\n{block.shown}\npython tests/pages.py docs/{page.name}?"


def test_any_function_gives_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEWSTEP_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (block,) = pages.blocks(PRETRAINING.read_text(encoding="utf-8"))
    exec(compile(block.code, "docs/pretraining.md", "exec"), {})
    assert embeddings("features.npz", "test").feature_shape == (49,)


def test_any_network_can_be_generated() -> None:
    (block,) = pages.blocks(UNCERTAINTY.read_text(encoding="utf-8"))
    space: dict[str, Any] = {}
    exec(compile(block.code, "docs/uncertainty.md", "exec"), space)
    whole, some = (dict(space[name].learner.named_parameters()) for name in ("whole", "some"))
    assert not [name for name in whole if name.startswith("network")]
    assert [name for name in some if name.startswith("network")] == [
        "network.0.weight",
        "network.0.bias",
        "network.2.weight",
        "network.2.bias",
    ]


def test_any_method_can_be_put_on_an_embedding() -> None:
    (block,) = pages.blocks(LEO.read_text(encoding="utf-8"))
    space: dict[str, Any] = {}
    exec(compile(block.code, "docs/leo.md", "exec"), space)
    tasks = classification_tasks(1, 28, 28).support
    point = space["method"].learner.float().adapt(Batch(*(tensor[0].float() for tensor in tasks)))[0]
    assert point.value["weight"].shape == (3, 64)
