"""Models and fitted estimators in a file or a pickle: the same predictions, and nothing of a stranger's is run."""

import json
import pickle
import pickletools
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pages
import pytest
import torch
from huggingface_hub import ModelCard
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import nn

import fewstep
from fewstep import FewShotClassifier, FewShotRegressor
from fewstep.algorithms import maml
from fewstep.commands.main import main
from fewstep.data import EpisodeSampler, SineOrLine, omniglot
from fewstep.data.storage.tensors import read_tensors, write_tensors
from fewstep.estimators.base import Estimator
from fewstep.estimators.card import model_card
from fewstep.estimators.hub import HubModel
from fewstep.estimators.model import TrainedModel
from fewstep.estimators.opened import opened, shipped
from fewstep.estimators.sharing import told_by
from fewstep.evaluation.simple import Simple
from fewstep.experiments.run import Run
from fewstep.recipes import RECIPES

OLD = Path(__file__).parents[1] / "fixtures" / "runs-0.1.0"
LEO, SINES = OLD / "leo-features-1shot", OLD / "meta-sgd-sinusoid"


def rows(seed: int = 0) -> tuple[NDArray[np.float64], NDArray[Any], NDArray[np.float64]]:
    source = np.random.default_rng(seed)
    return source.normal(size=(9, 8)), np.array(list("abcabcabc")), source.normal(size=(20, 8))


def fitted() -> dict[str, Estimator]:
    x, y, _ = rows()
    centre = torch.from_numpy(x.mean(0)).float()
    return {
        "trained": FewShotClassifier(LEO).fit(x, y),
        "numbers": FewShotClassifier(LEO, statistics="joined").fit(x, [3, 1, 2] * 3),
        "default": FewShotClassifier().fit(x, y),
        "simple": FewShotClassifier(Simple("ridge", 0.3, centre)).fit(x, y),
        "regression": FewShotRegressor(SINES, noise=0.3, random_state=4).fit(x[:, :1], x[:, 1]),
    }


def answers(estimator: Estimator) -> NDArray[Any]:
    _, _, query = rows()
    if isinstance(estimator, FewShotRegressor):
        return np.stack(estimator.predict(query[:, :1], return_std=True))
    return np.asarray(estimator.predict_proba(query))


@pytest.mark.parametrize("name", fitted())
def test_a_fitted_estimator_comes_back_from_a_file_and_a_pickle(name: str, tmp_path: Path) -> None:
    model = fitted()[name]
    file = model.save(tmp_path / "owls", licence="CC BY 4.0")
    assert file.name == "owls.fewstep.safetensors"
    for other in (fewstep.load(file), pickle.loads(pickle.dumps(model)), fewstep.load(file).fit(*support(model))):
        np.testing.assert_array_equal(answers(other), answers(model))
        assert getattr(other, "classes_", 0) is not None
        np.testing.assert_array_equal(getattr(other, "classes_", 0), getattr(model, "classes_", 0))
        assert other.n_features_in_ == model.n_features_in_


def support(model: Estimator) -> tuple[Any, Any]:
    x, y, _ = rows()
    if isinstance(model, FewShotRegressor):
        return x[:, :1], x[:, 1]
    return x, y if model.classes_.dtype.kind == "U" else [3, 1, 2] * 3


def test_a_pickle_of_a_trained_model_holds_arrays_and_no_code_of_torch() -> None:
    names = [str(argument) for _, argument, _ in pickletools.genops(pickle.dumps(fitted()["trained"]))]
    assert not [name for name in names if name.startswith("torch")]


def test_a_run_is_shared_by_its_file_without_its_folder(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(LEO, tmp_path / "run"))
    x, y, query = rows()
    wanted = fewstep.load(folder).fit(x, y).predict_proba(query)
    file = fewstep.load(folder).save(tmp_path / "leo")
    shutil.rmtree(folder)
    np.testing.assert_array_equal(FewShotClassifier(file).fit(x, y).predict_proba(query), wanted)
    words = json.loads(read_tensors(file)[1]["fewstep"])
    assert words["config"]["recipe"] == "leo-features-1shot"
    assert words["fitted"] is None


def test_a_run_saves_its_best_meta_parameters(tmp_path: Path) -> None:
    config = RECIPES["maml-sinusoid"]()
    short = replace(config.training, steps=2, validate_every=1, validation_tasks=4, compile="off")
    run = Run.create(replace(config, training=short), tmp_path / "run")
    with pytest.raises(ValueError, match="training has not reached its first validation"):
        run.save(tmp_path / "sine")
    run.train()
    file = run.save(tmp_path / "sine", licence="CC0")
    given = [[0.0], [1.0], [2.0]], [0.0, 0.8, 0.9]
    told = [fewstep.load(one).fit(*given).predict([[1.5], [2.5]]) for one in (file, run)]
    np.testing.assert_array_equal(*told)
    assert told_by(file)["licence"] == "CC0"


def test_what_no_recipe_describes_is_not_written(tmp_path: Path) -> None:
    x, y, _ = rows()
    own = FewShotClassifier(maml(nn.Linear(8, 3), rate=0.1)).fit(x, y)
    with pytest.raises(ValueError, match="it has no configuration, and a file holds no code"):
        own.save(tmp_path / "own")
    np.testing.assert_array_equal(answers(pickle.loads(pickle.dumps(own))), answers(own))  # as any torch module
    model = opened(LEO)
    assert isinstance(model, TrainedModel)
    extracting = TrainedModel(model.method, lambda images: images.flatten(1), origin=model.origin)
    with pytest.raises(ValueError, match="a function of your own"):
        FewShotClassifier(extracting).save(tmp_path / "own")
    with pytest.raises(ValueError, match="give a number"):
        FewShotRegressor(SINES, random_state=np.random.RandomState(0)).save(tmp_path / "own")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("labels", [np.array(["2026-01-01", "2026-01-02"], "datetime64[D]"), np.longdouble([1, 2])])
def test_labels_that_json_has_no_form_for_are_refused_in_a_line(labels: Any, tmp_path: Path) -> None:
    fitted = FewShotClassifier().fit(np.eye(2), labels)
    assert (fitted.predict(np.eye(2)) == labels).all()
    with pytest.raises(ValueError, match=r"labels that are numbers or text, not \w+.*: fit to y\.astype\(str\)"):
        fitted.save(tmp_path / "owls")
    assert not list(tmp_path.iterdir())


# -- from strangers ----------------------------------------------------------------------------------------------------


def test_damaged_and_hostile_files_are_refused_and_run_nothing(tmp_path: Path) -> None:
    file = fitted()["trained"].save(tmp_path / "good")
    tensors, metadata = read_tensors(file)
    told = json.loads(metadata["fewstep"])

    def changed(name: str, words: Any, arrays: Any = tensors) -> Path:
        write_tensors(tmp_path / name, arrays, {"fewstep": json.dumps(words)})
        return tmp_path / name

    mark = tmp_path / "ran"
    code = f"__import__('pathlib').Path({str(mark)!r}).touch()"
    config = told["config"]
    hostile = {
        "another method": told | {"config": config | {"method": {"kind": "os.system", "command": code}}},
        "another setting": told | {"config": config | {"method": config["method"] | {"__reduce__": code}}},
        "a dtype": told | {"config": config | {"dtype": "load"}},
        "no configuration": {name: value for name, value in told.items() if name != "config"},
        "an extractor of code": told | {"extractor": {"fewstep": json.dumps({"architecture": {"name": code}})}},
        "labels of objects": told | {"fitted": told["fitted"] | {"classes_": {"kind": "V", "values": [code]}}},
        "settings of its own": told | {"estimator": {"model": str(mark)}},
        "attributes of its own": told | {"fitted": told["fitted"] | {"predict": code}},
        "a newer format": told | {"format": 99},
        "no words": {},
        "a list": [],
    }
    for name, words in hostile.items():
        with pytest.raises(ValueError, match=r"damaged or holds no model of fewstep|99"):
            fewstep.load(changed("bad.fewstep.safetensors", words))
        assert not mark.exists(), name
    weights = {name: tensor for name, tensor in tensors.items() if not name.endswith("decoder.weight")}
    with pytest.raises(ValueError, match="names or shapes differ"):
        fewstep.load(changed("less.fewstep.safetensors", told, weights))
    whole = file.read_bytes()
    for position in (7, len(whole) // 2, len(whole) - 3):
        file.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        with pytest.raises(ValueError, match="damaged"):
            fewstep.load(file)
    save_file({"x": torch.ones(2)}, tmp_path / "other.safetensors")
    for path in (tmp_path / "other.safetensors", Path(__file__)):
        with pytest.raises(ValueError, match="damaged or holds no model of fewstep"):
            fewstep.load(path)


def test_reading_a_file_opens_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths in the configuration, of the features it was trained on, are not looked at."""
    file = fewstep.load(LEO).save(tmp_path / "leo")
    tensors, metadata = read_tensors(file)
    told = json.loads(metadata["fewstep"])
    told["config"]["data"]["path"] = str(tmp_path / "secret.npz")
    write_tensors(file, tensors, {"fewstep": json.dumps(told)})
    seen: list[str] = []
    real = Path.open
    monkeypatch.setattr(Path, "open", lambda self, *a, **k: seen.append(str(self)) or real(self, *a, **k))
    monkeypatch.setattr(np, "load", lambda path, *a, **k: seen.append(str(path)))
    fewstep.load(file)
    assert not [path for path in seen if "secret" in path]


# -- cards and the Hub -------------------------------------------------------------------------------------------------


def test_the_hub_keeps_a_model_and_its_card_as_its_own_tools_do(tmp_path: Path) -> None:
    for name in ("trained", "default", "regression"):
        model = fitted()[name]
        HubModel(model, licence="MIT").save_pretrained(tmp_path / name)
        assert {path.name for path in (tmp_path / name).iterdir()} >= {"README.md", "model.fewstep.safetensors"}
        found = HubModel.from_pretrained(str(tmp_path / name))
        np.testing.assert_array_equal(answers(found.estimator), answers(model))
        card = ModelCard.load(tmp_path / name / "README.md")
        assert card.data.library_name == "fewstep"
        assert card.data.license_name == "MIT"
        (block,) = pages.blocks(card.text)
        space: dict[str, Any] = {"X_new": rows()[2][:, : model.n_features_in_]}
        exec(block.code.replace(f'"{name}"', repr(str(tmp_path / name))), space)


def test_what_is_pushed_is_found_in_the_hubs_own_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub that is a folder: what is uploaded lies where huggingface_hub keeps what it has fetched."""
    kept, commit = tmp_path / "models--me--owls", "0" * 40

    class Hub:
        def __init__(self, **_: Any) -> None: ...

        def create_repo(self, repo_id: str, **_: Any) -> SimpleNamespace:
            return SimpleNamespace(repo_id=f"me/{repo_id}")  # as the Hub does for whoever is logged in

        def upload_folder(self, *, folder_path: Path, **_: Any) -> str:
            shutil.copytree(folder_path, kept / "snapshots" / commit)
            (kept / "refs").mkdir()
            (kept / "refs" / "main").write_text(commit)
            return commit

    monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", Hub)
    model = fitted()["trained"]
    assert HubModel(model, licence="MIT").push_to_hub("owls") == commit
    found = HubModel.from_pretrained("me/owls", cache_dir=tmp_path, local_files_only=True)
    np.testing.assert_array_equal(answers(found.estimator), answers(model))
    assert found.licence == "MIT"
    assert 'HubModel.from_pretrained("me/owls").estimator' in (kept / "snapshots" / commit / "README.md").read_text()


def test_a_run_is_exported_with_a_card_that_says_how_it_was_tested(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(LEO, tmp_path / "run"))
    scores = {"adapted": {"mean": 0.5, "half_width": 0.01}, "ridge": {"mean": 0.6, "half_width": 0.01}}
    test = {"score": "accuracy", "tasks": 20, "transductive": False, "below": "below ridge", "scores": scores}
    (folder / "test.json").write_text(json.dumps(test | {"protocol": {"ways": 5, "shots": 1}}))
    config = json.loads((folder / "config.json").read_text())
    config["testing"]["shots"] = [5, 1]
    (folder / "config.json").write_text(json.dumps(config))
    for shots in (5, 1):
        (folder / f"test-{shots}-shot.json").write_text(json.dumps(test | {"protocol": {"shots": shots}}))
    main(["export", str(folder), str(tmp_path / "several")])
    said = (tmp_path / "several.md").read_text()
    assert said.index("inductive. shots: 5.") < said.index("inductive. shots: 1.")
    config["testing"]["shots"] = []
    (folder / "config.json").write_text(json.dumps(config))
    main(["export", str(folder), str(tmp_path / "leo"), "--licence", "CC0"])
    card = (tmp_path / "leo.md").read_text()
    assert "meta-trained by `leo-features-1shot` of fewstep" in card
    assert "| adapted | 50.00 ± 1.00 |" in card
    assert "**below ridge.**" in card
    assert "20 tasks, 95% intervals, inductive. ways: 5, shots: 1." in card
    assert "It takes features of width 8" in card
    np.savez(tmp_path / "few.npz", x=rows()[0], y=rows()[1])
    few, out = str(tmp_path / "few.npz"), tmp_path / "out.csv"
    main(["predict", str(tmp_path / "leo.fewstep.safetensors"), "--support", few, "--query", few, "--out", str(out)])
    assert len(out.read_text().splitlines()) == 10


# -- shipped models ----------------------------------------------------------------------------------------------------


def test_shipped_models_are_small_and_listed(capsys: pytest.CaptureFixture[str]) -> None:
    main(["list"])
    listed = " ".join(capsys.readouterr().out.split())
    assert {"omniglot-leo", "sine-line-leo"} <= shipped().keys()
    for name, path in shipped().items():
        assert path.stat().st_size < 2e6
        assert f"{name}: LEO" in listed
        words = told_by(path)
        assert words["facts"]["test"]["tasks"] >= 1000
        assert words["licence"]


def test_the_shipped_leo_tells_characters_apart_that_it_has_not_seen() -> None:
    """20 ways, 1 shot, from images: 90.2 % in its test of 2,000 tasks; 10 tasks here."""
    source = EpisodeSampler(omniglot("test"), ways=20, shots=1, queries=3, tasks=10, seed=5)
    tasks = source.batch(0)
    right = []
    for i in range(10):
        x, y = tasks.support.x[i], tasks.support.y[i].argmax(1)
        model = FewShotClassifier("omniglot-leo").fit(x, y)
        right.append(model.score(tasks.query.x[i], tasks.query.y[i].argmax(1)))
    assert np.mean(right) > 0.85


def test_the_shipped_regressor_knows_sines_and_lines_by_a_few_points() -> None:
    """Its test of 1,000 tasks has a squared error of 0.45 ± 0.14, and a line through the points much more."""
    tasks = SineOrLine(tasks=20, shots=5, queries=50, seed=3, noise=0.3).batch(0)
    errors, inside = np.empty((20, 2)), []
    for i in range(20):
        x, y, query = tasks.support.x[i], tasks.support.y[i, :, 0], tasks.query.x[i]
        truth = tasks.query.y[i, :, 0].numpy()
        model = FewShotRegressor("sine-line-leo", noise=0.3, samples=20).fit(x, y)
        errors[i] = [np.mean((other.predict(query) - truth) ** 2) for other in (model, FewShotRegressor().fit(x, y))]
        low, high = model.predict_distribution(query).interval(0.9)
        inside.append(np.mean((low < truth) & (truth < high)))
    assert errors[:, 0].mean() < 0.5 * errors[:, 1].mean()
    assert np.mean(inside) > 0.6


def test_a_card_leaves_out_the_mean_of_checkpoints_of_which_its_file_holds_the_best() -> None:
    told = told_by(shipped()["omniglot-leo"])
    mean = {"mean of 3 checkpoints": {"mean": 0.9, "half_width": 0.01}}
    test = told["facts"]["test"]
    with_mean = told | {"facts": told["facts"] | {"test": test | {"scores": test["scores"] | mean}}}
    assert "| adapted |" in model_card(told, ["model = …"], "owls")
    assert model_card(with_mean, ["model = …"], "owls") == model_card(told, ["model = …"], "owls")
