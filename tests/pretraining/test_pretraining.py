import dataclasses
import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from fewstep.data import Dataset
from fewstep.networks.backbone import Backbone
from fewstep.pretraining import FeatureExtractor, Pretraining, cached_features, embed, pretrain

SMALL = Pretraining(channels=(4, 8, 8), pools=2, block=2, epochs=2, batch=8, rate=0.01)


def images(classes: int = 3, seed: int = 0) -> Dataset:
    """Classes of unequal size, each a bar in a place of its own and noise."""
    rng = np.random.default_rng(seed)
    sizes = [5 + c for c in range(classes)]
    rows = rng.integers(0, 60, (sum(sizes), 1, 12, 12), dtype=np.uint8)
    for c, start in enumerate(np.cumsum([0, *sizes[:-1]])):
        rows[start : start + sizes[c], :, :, 3 * c % 12 : 3 * c % 12 + 2] = 255
    return Dataset.from_sorted(rows, np.cumsum([0, *sizes]), [f"class {c}" for c in range(classes)], split="train")


@pytest.fixture
def backbone() -> Backbone:
    network = Backbone(5, (4, 8, 8), pools=2)
    network(torch.rand(32, 1, 12, 12))  # moves the running statistics away from 0 and 1
    return network.eval()


@pytest.mark.parametrize("block", [1, 2, 3])
@torch.no_grad()
def test_features_are_the_spatial_mean_of_the_blocks_output(backbone: Backbone, block: int) -> None:
    x, seen = torch.rand(6, 1, 12, 12), []
    backbone.get_submodule(f"blocks.block{block}").register_forward_hook(lambda *call: seen.append(call[2].clone()))
    logits = backbone(x)
    torch.testing.assert_close(backbone.features(x, block), seen[0].mean((2, 3)), rtol=0, atol=0)
    torch.testing.assert_close(backbone.up_to(block).features(x, block), seen[0].mean((2, 3)), rtol=0, atol=0)
    torch.testing.assert_close(logits, backbone.head(backbone.features(x, 3)))


def test_extractor_pools_normalises_and_survives_a_file(backbone: Backbone, tmp_path: Path) -> None:
    x = torch.rand(7, 1, 12, 12)
    raw = FeatureExtractor(backbone, 2, normalise=False)(x)
    extractor = FeatureExtractor(backbone, 2)
    torch.testing.assert_close(raw, backbone.features(x, 2).detach())
    torch.testing.assert_close(extractor(x), torch.nn.functional.normalize(raw))
    torch.testing.assert_close(extractor(x).norm(dim=1), torch.ones(7))
    torch.testing.assert_close(extractor(x, batch=3), extractor(x))
    assert extractor(x[:0]).shape == (0, 8) == (0, extractor.features)
    extractor.train()
    assert not extractor.backbone.training
    extractor.save(tmp_path / "extractor.safetensors")
    assert torch.equal(FeatureExtractor.load(tmp_path / "extractor.safetensors")(x), extractor(x))


def test_extractor_of_the_last_block_survives_a_file(backbone: Backbone, tmp_path: Path) -> None:
    x = torch.rand(3, 1, 12, 12)
    extractor = FeatureExtractor(backbone, 3)
    extractor.save(tmp_path / "e.safetensors")
    assert torch.equal(FeatureExtractor.load(tmp_path / "e.safetensors")(x), extractor(x))


def test_extractor_is_a_copy(backbone: Backbone) -> None:
    x = torch.rand(3, 1, 12, 12)
    extractor = FeatureExtractor(backbone, 2)
    before = extractor(x)
    torch.nn.init.zeros_(backbone.get_parameter("blocks.block1.convolution.weight"))
    assert torch.equal(extractor(x), before)


def test_pretraining_learns_and_depends_on_the_seed_alone() -> None:
    data, config, seen = images(), dataclasses.replace(SMALL, epochs=30, precision="float32"), []
    first = pretrain(data, config, seed=1, progress=lambda *call: seen.append(call))
    torch.manual_seed(5)
    state = torch.get_rng_state()
    again, other = (pretrain(data, config, seed=seed) for seed in (1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    assert not torch.equal(first.head.weight, other.head.weight)
    with torch.no_grad():
        logits = first(data.gather(np.arange(len(data))))
    assert (logits.argmax(1).numpy() == data.labels).mean() > 0.9
    assert [call[0] for call in seen] == list(range(1, seen[0][1] + 1))
    assert seen[-1][2]["loss"] < seen[0][2]["loss"]
    assert not first.training


@pytest.mark.parametrize("precision", ["auto", "bfloat16"])
def test_other_precisions_run(precision: str) -> None:
    network = pretrain(images(), dataclasses.replace(SMALL, precision=precision), seed=0)
    assert next(network.parameters()).dtype == torch.float32
    assert Pretraining().resolved("cpu").precision in ("bfloat16", "float32")


def test_a_dataset_smaller_than_a_batch_is_one_batch() -> None:
    pretrain(images(), dataclasses.replace(SMALL, batch=1000, epochs=1), seed=0)


def test_embedding_keeps_classes_and_order(backbone: Backbone) -> None:
    data = images().subset([2, 0])
    features = embed(backbone, data, 2, batch=4)
    expected = FeatureExtractor(backbone, 2)(data.gather(np.arange(len(data))))
    torch.testing.assert_close(features.gather(np.arange(len(data))), expected)
    assert features.class_names == data.class_names
    assert np.array_equal(features.offsets, data.offsets)
    assert features.feature_shape == (8,)


def test_cache_returns_the_same_bits(tmp_path: Path) -> None:
    splits = {"train": images(), "test": images(4, seed=1)}
    said: list[str] = []
    features, extractor = cached_features(splits, SMALL, folder=tmp_path, report=said.append)
    again, loaded = cached_features(splits, SMALL, folder=tmp_path, report=said.append)
    assert len(list(tmp_path.iterdir())) == 1
    assert "taken from" in said[-1]
    for split in splits:
        assert torch.equal(features[split].store, again[split].store)
        assert again[split].class_names == splits[split].class_names
    x = splits["test"].gather(np.arange(4))
    assert torch.equal(extractor(x), loaded(x))
    torch.testing.assert_close(loaded(x), again["test"].gather(np.arange(4)))


def test_cache_key_covers_what_the_numbers_depend_on(tmp_path: Path) -> None:
    splits = {"train": images(), "test": images(4, seed=1)}
    cached_features(splits, SMALL, folder=tmp_path)
    cached_features(splits, SMALL, seed=1, folder=tmp_path)
    cached_features(splits, SMALL, normalise=False, folder=tmp_path)
    cached_features(splits, dataclasses.replace(SMALL, shift=1), folder=tmp_path)
    cached_features({**splits, "test": images(4, seed=2)}, SMALL, folder=tmp_path)
    cached_features({**splits, "test": splits["test"].subset([1, 0, 2, 3])}, SMALL, folder=tmp_path)
    assert len(list(tmp_path.iterdir())) == 6


@pytest.mark.parametrize("damage", ["byte", "cut", "empty"])
def test_a_damaged_cache_is_computed_again(tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str) -> None:
    splits = {"train": images()}
    features, _ = cached_features(splits, SMALL, folder=tmp_path)
    (path,) = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes({"byte": content, "cut": content[:-9], "empty": b""}[damage])
    with caplog.at_level(logging.WARNING):
        again, _ = cached_features(splits, SMALL, folder=tmp_path)
    assert len(caplog.records) == 1
    assert "unreadable" in caplog.text
    assert torch.equal(again["train"].store, features["train"].store)
    caplog.clear()
    cached_features(splits, SMALL, folder=tmp_path)
    assert not caplog.records


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    cached_features({"train": images()}, SMALL, folder=tmp_path / "file")
    assert "cannot keep" in caplog.text


def test_errors_say_what_to_do(backbone: Backbone, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has 1 class; at least 2"):
        pretrain(images(1), SMALL, seed=0)
    with pytest.raises(ValueError, match=r"images \[channels, height, width\]"):
        pretrain(Dataset.from_labels(torch.rand(4, 3), [0, 0, 1, 1]), SMALL, seed=0)
    with pytest.raises(ValueError, match="4 pools need 16 or more"):
        pretrain(images(), Pretraining(channels=(2, 2, 2, 2), pools=4, block=1), seed=0)
    with pytest.raises(ValueError, match="lower rate"):
        pretrain(images(), dataclasses.replace(SMALL, rate=1e30), seed=0)
    with pytest.raises(ValueError, match="features of block 5"):
        Pretraining(block=5)
    with pytest.raises(ValueError, match="block must be from 1 to 3, got 0"):
        backbone.features(torch.rand(1, 1, 12, 12), 0)
    with pytest.raises(ValueError, match="no classifier"):
        backbone.up_to(2)(torch.rand(1, 1, 12, 12))
    with pytest.raises(ValueError, match=r"images must be \[rows, 1, height, width\]"):
        FeatureExtractor(backbone, 1)(torch.rand(2, 3, 12, 12))
    with pytest.raises(ValueError, match="split named 'train'"):
        cached_features({"test": images()}, SMALL, folder=tmp_path)
    with pytest.raises(FileNotFoundError):
        FeatureExtractor.load(tmp_path / "none")
    (tmp_path / "bad").write_text("no")
    with pytest.raises(ValueError, match="is no feature extractor"):
        FeatureExtractor.load(tmp_path / "bad")
