import inspect
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import imports
import numpy as np
import pytest
import torch
from pictures import SMALL, everything, pictures

from fewstep.data import Augmentation
from fewstep.training.pretraining import Architecture, FeatureExtractor, Standardised, cached_features, embed

ONCE = replace(SMALL, epochs=1)


def extractor() -> FeatureExtractor:
    network = Standardised(SMALL.network.build(5, 1))
    network(torch.rand(32, 1, 8, 8))  # moves the running statistics away from 0 and 1
    return FeatureExtractor(network, SMALL.network)


def test_embedding_keeps_classes_and_order() -> None:
    data, network = pictures().subset([2, 0]), extractor()
    features = embed(network, data, batch=4)
    torch.testing.assert_close(everything(features), network(everything(data)))
    assert features.class_names == data.class_names
    assert np.array_equal(features.offsets, data.offsets)
    assert (features.name, features.split, features.feature_shape) == (data.name, data.split, (4,))


def test_cache_returns_the_same_bits(tmp_path: Path) -> None:
    splits, said = {"train": pictures(), "test": pictures(3, seed=1)}, []
    features, network = cached_features(splits, ONCE, "last", folder=tmp_path, report=said.append)
    torch.manual_seed(7)
    state = torch.get_rng_state()
    again, loaded = cached_features(splits, ONCE, "last", folder=tmp_path, report=said.append)
    assert torch.equal(torch.get_rng_state(), state)
    assert len(list(tmp_path.iterdir())) == 1
    assert ["taken from" in line for line in said] == [False, False, True]
    for split, data in splits.items():
        assert torch.equal(features[split].store, again[split].store)
        for found in (features[split], again[split]):
            assert found.class_names == data.class_names
            assert np.array_equal(found.offsets, data.offsets)
    x = everything(splits["test"])
    assert torch.equal(network(x), loaded(x))
    assert (loaded.layer, loaded.features) == ("blocks.block2", 8)
    torch.testing.assert_close(loaded(x), everything(again["test"]))


def test_cache_key_covers_what_the_numbers_depend_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = pictures(), pictures(3, seed=1)
    splits = {"train": first, "test": second}
    moved = replace(second, offsets=second.offsets + np.array([0, 1, 0, 0]))
    distinct: list[tuple[dict[str, Any], Any, dict[str, Any]]] = [
        (splits, ONCE, {}),
        (splits, ONCE, {"seed": 1}),
        (splits, ONCE, {"layer": "last"}),
        (splits, ONCE, {"normalise": False}),
        (splits, replace(ONCE, rate=0.01), {}),
        (splits, replace(ONCE, augmentation=Augmentation(2)), {}),
        (splits, replace(ONCE, network=Architecture(widths=(4, 9), pools=1)), {}),
        ({"train": first}, ONCE, {}),
        ({"train": first, "test": pictures(3, seed=2)}, ONCE, {}),
        ({"train": first, "test": moved}, ONCE, {}),
        ({"train": first, "test": second.subset([1, 0, 2])}, ONCE, {}),
        ({"train": first, "other": second}, ONCE, {}),
    ]
    for i, (images, options, others) in enumerate(distinct, start=1):
        cached_features(images, options, folder=tmp_path, **others)
        assert len(list(tmp_path.iterdir())) == i
    # Neither the order of splits nor names matter.
    cached_features({"test": second, "train": replace(first, class_names=tuple("abcd"))}, ONCE, folder=tmp_path)
    assert len(list(tmp_path.iterdir())) == len(distinct)
    # The number of threads decides in which order sums are rounded.
    threads = torch.get_num_threads()
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads + 1)
    cached_features(splits, ONCE, folder=tmp_path)
    assert len(list(tmp_path.iterdir())) == len(distinct) + 1


@pytest.mark.parametrize("module", imports.reached("fewstep.training.pretraining.features", "fewstep"))
def test_cache_key_covers_the_source(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def key() -> str:
        from fewstep.training.pretraining.features import cache_key

        return cache_key({"train": pictures()}, SMALL, "middle", 0, True, torch.device("cpu"))

    before, source = key(), inspect.getsource

    def changed(of: ModuleType) -> str:
        return source(of) + ("# changed" if of.__name__ == module else "")

    monkeypatch.setattr(inspect, "getsource", changed)
    assert key() != before


@pytest.mark.parametrize("damage", ["byte", "cut", "empty"])
def test_a_damaged_cache_is_computed_again(tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str) -> None:
    splits = {"train": pictures()}
    features, _ = cached_features(splits, ONCE, folder=tmp_path)
    (path,) = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes({"byte": content, "cut": content[:-9], "empty": b""}[damage])
    with caplog.at_level(logging.WARNING):
        again, _ = cached_features(splits, ONCE, folder=tmp_path)
    assert len(caplog.records) == 1
    assert "unreadable" in caplog.text
    assert torch.equal(again["train"].store, features["train"].store)
    caplog.clear()
    cached_features(splits, ONCE, folder=tmp_path)
    assert not caplog.records


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    features, _ = cached_features({"train": pictures()}, ONCE, folder=tmp_path / "file")
    assert "cannot keep" in caplog.text
    assert len(features["train"]) == len(pictures())


def test_a_training_split_is_needed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"split named 'train' is needed to pretrain on, got \['test'\]"):
        cached_features({"test": pictures()}, ONCE, folder=tmp_path)


def test_progress_and_device_are_passed_on(tmp_path: Path) -> None:
    steps: list[int] = []
    note: Callable[..., None] = lambda state, _: steps.append(state.step)  # noqa: E731
    features, network = cached_features({"train": pictures()}, ONCE, device="cpu", folder=tmp_path, progress=note)
    assert steps == [5]
    assert features["train"].store.device == next(network.parameters()).device == torch.device("cpu")
