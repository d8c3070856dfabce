import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from fewstep.data import Augmentation
from fewstep.networks.conv_net import ConvNet
from fewstep.networks.resnet9 import ResNet9
from fewstep.networks.resnet12 import ResNet12
from fewstep.networks.wide_resnet import WideResNet
from fewstep.training.pretraining import Architecture, Pretraining
from fewstep.training.pretraining.options import structure, unstructure


def test_one_cycle_rises_to_the_highest_rate_and_falls_to_nothing() -> None:
    options = Pretraining(rate=0.4, warmup=0.25)
    rates = [options.rate_at(step, 200) for step in range(201)]
    assert rates[0] == pytest.approx(0.4 / 25)
    assert rates[25] == pytest.approx(0.4 * (1 + 1 / 25) / 2)  # half a rise
    assert rates[50] == max(rates) == pytest.approx(0.4)
    assert rates[125] == pytest.approx(0.2)  # half a fall
    assert 0 < rates[199] < 1e-3 * 0.4
    assert rates[200] == pytest.approx(0, abs=1e-12)
    assert (np.diff(rates[:51]) > 0).all()
    assert (np.diff(rates[50:]) < 0).all()
    assert replace(options, warmup=0.0).rate_at(0, 200) == 0.4


def test_steps_are_those_of_table_4() -> None:
    options = Pretraining(rate=0.1, schedule="steps", decay=0.2)
    rates = [options.rate_at(step, 10_000) for step in range(10_000)]
    falls = np.flatnonzero(np.diff(rates)) + 1
    assert falls.tolist() == [3000, 5000, 7000, 8000, 9000]
    assert [rates[step] for step in (0, *falls)] == pytest.approx([0.1 * 0.2**i for i in range(6)])
    assert replace(options, milestones=()).rate_at(9_999, 10_000) == 0.1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"batch": 0}, "batch must be at least 1, got 0"),
        ({"warmup": 1.0}, r"warmup must be in \[0, 1\), got 1.0"),
        ({"warmup": -0.1}, r"warmup must be in \[0, 1\), got -0.1"),
        ({"label_smoothing": 1.0}, r"label_smoothing must be in \[0, 1\)"),
        ({"milestones": (0.5, 0.3)}, r"milestones must rise between 0 and 1, got \(0.5, 0.3\)"),
        ({"milestones": (0.0, 0.3)}, "milestones must rise"),
        ({"milestones": (1.0,)}, r"milestones must be in \[0, 1\), got 1.0"),
        ({"rate": 0.0}, "rate must be positive and finite, got 0.0"),
        ({"rate": float("nan")}, "rate must be positive and finite, got nan"),
        ({"decay": 0.0}, "decay must be positive and finite, got 0.0"),
        ({"weight_decay": -1.0}, "weight_decay must be at least 0 and finite, got -1.0"),
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"pretraining: .*{message}"):
        Pretraining(**wrong)
    with pytest.raises(ValueError, match="no settings of Pretraining: "):
        structure(wrong, Pretraining)


@pytest.mark.parametrize(
    ("settings", "name"),
    [(Pretraining(), "optimiser"), (Pretraining(), "schedule"), (Pretraining(), "precision"), (Architecture(), "kind")],
)
def test_an_unknown_word_is_refused(settings: Any, name: str) -> None:
    object.__setattr__(settings, name, "other")  # constructors are checked by jaxtyping, in tests only
    with pytest.raises(ValueError, match=rf"{name} must be one of '.*', got 'other'"):
        settings.__post_init__()
    with pytest.raises(ValueError, match=rf"it must be one of '.*' @ \$\.{name}"):
        structure({name: "other"}, type(settings))


def test_architectures_build_what_they_name() -> None:
    wide = Architecture("wrn", depth=10, factor=2, dropout=0.3, strides=(2, 2, 2)).build(5, 3)
    assert isinstance(wide, WideResNet)
    assert sum(isinstance(module, torch.nn.Conv2d) for module in wide.modules()) == 10
    assert (wide.head.in_features, wide.head.out_features, wide.inputs) == (128, 5, 3)
    assert {module.p for module in wide.modules() if isinstance(module, torch.nn.Dropout)} == {0.3}
    assert wide.get_submodule("groups.0.0.first").stride == (2, 2)
    for kind, network, widths in (
        ("convnet", ConvNet, (4, 6)),
        ("resnet9", ResNet9, (4, 6, 8, 10)),
        ("resnet12", ResNet12, (4, 6)),
    ):
        built = Architecture(kind, widths, pools=1).build(3, 2)
        assert type(built) is network
        assert (built.head.in_features, built.head.out_features, built.inputs) == (widths[-1], 3, 2)
        assert any(isinstance(module, torch.nn.BatchNorm2d) for module in built.modules())
    assert Architecture("convnet", (4, 6), pools=1).build(3, 2).smallest == 2
    for kind in ("convnet", "resnet9", "resnet12"):  # on the meta device, for they are large
        with torch.device("meta"):
            assert Architecture(kind).build(3, 2).head.in_features == (256 if kind == "convnet" else 640)


def test_a_cosine_classifier_sees_no_lengths() -> None:
    torch.manual_seed(0)
    built = Architecture("convnet", (4, 6), pools=1, classifier="cosine").build(3, 2)
    head = built.head
    x = torch.randn(5, 6)
    cosines = torch.nn.functional.cosine_similarity(x[:, None], head.weight[None], dim=2)
    torch.testing.assert_close(head(x), 10 * cosines)
    with torch.no_grad():
        head.weight *= torch.tensor([[0.1], [3.0], [20.0]])
        head.scale.fill_(2.0)
    torch.testing.assert_close(head(7 * x), 2 * cosines)
    assert {name for name, _ in built.named_parameters() if "head" in name} == {"head.weight", "head.scale"}


def test_settings_survive_json() -> None:
    options = Pretraining(
        Architecture("wrn", depth=10, factor=1, strides=(2, 2, 2)),
        schedule="steps",
        milestones=(0.25, 0.5),
        augmentation=Augmentation(flip=True, area=(0.1, 1.0), side=8),
        optimiser="sgd",
    )
    for settings in (options, Pretraining(), options.network):
        again = structure(json.loads(json.dumps(unstructure(settings))), type(settings))
        assert again == settings
        assert hash(again) == hash(settings)  # tuples, not lists


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epoch": 2}, "there is no epoch, did you mean epochs."),
        ({"epochs": "two"}, "'two' is not a whole number @ $.epochs"),
        ({"rate": -1.0}, "rate must be positive and finite, got -1.0"),
        ({"network": {"kind": "vgg"}}, "it must be one of 'convnet', 'resnet9', 'resnet12', 'wrn' @ $.network.kind"),
        ({"augmentation": {"crop": -1}}, "crop must be at least 0 pixels"),
        ([], "no settings"),
        (3, "no settings"),
        (None, "no settings"),
    ],
)
def test_what_are_no_settings_is_refused_in_words(values: Any, message: str) -> None:
    with pytest.raises(ValueError, match="no settings of Pretraining: ") as caught:
        structure(values, Pretraining)
    assert message.strip(".") in str(caught.value).replace("(", ".").replace(")", ".")


def test_precision_is_decided_once() -> None:
    assert Pretraining(precision="auto").resolved("cpu").precision in ("bfloat16", "float32")
    assert Pretraining(precision="bfloat16").resolved("cpu").precision == "bfloat16"
    assert Pretraining(precision="auto").resolved("mps").precision == "float32"
