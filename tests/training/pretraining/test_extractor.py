import json
from pathlib import Path
from typing import Any

import pytest
import torch
from jaxtyping import Float
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from fewstep.data.storage.tensors import write_tensors
from fewstep.networks.backbone import Backbone
from fewstep.training.pretraining import Architecture, FeatureExtractor, Standardised

NETWORKS = {
    "convnet": Architecture("convnet", (4, 6, 8), pools=2),
    "cosine": Architecture("convnet", (4, 6, 8), pools=2, classifier="cosine"),
    "resnet9": Architecture("resnet9", (4, 6, 8, 8)),
    "resnet12": Architecture("resnet12", (4, 6, 8)),
    "wrn": Architecture("wrn", depth=16, factor=1, dropout=0.5),
}
LAYERS = [
    ("convnet", "middle", "blocks.block2", 6),
    ("convnet", "last", "blocks.block3", 8),
    ("convnet", "1", "blocks.block1", 4),
    ("convnet", "blocks.block2.norm", "blocks.block2.norm", 6),  # before a ReLU in place
    ("convnet", "head", "head", 5),
    ("cosine", "last", "blocks.block3", 8),
    ("resnet9", "middle", "widen", 8),
    ("resnet9", "last", "second", 8),
    ("resnet9", "3", "first", 6),
    ("resnet9", "stem.0.1", "stem.0.1", 4),  # before a ReLU in place
    ("resnet9", "second.branch.0.0", "second.branch.0.0", 8),
    ("resnet12", "middle", "blocks.1", 6),
    ("resnet12", "last", "blocks.2", 8),
    ("resnet12", "12", "blocks.2", 8),
    ("resnet12", "blocks.0.shortcut", "blocks.0.shortcut", 4),
    ("wrn", "middle", "groups.2.0", 64),
    ("wrn", "10", "groups.1.1", 32),
    ("wrn", "12", "groups.2.0", 64),  # the second convolution of the last group, as the 21st of 28 is
    ("wrn", "14", "groups.2.1", 64),
    ("wrn", "last", "end", 64),
    ("wrn", "groups.2.1.before", "groups.2.1.before", 64),
    ("wrn", "groups.1.0.between.norm", "groups.1.0.between.norm", 32),
]


def trained(kind: str, inputs: int = 3) -> Standardised:
    """A network as training leaves one: no number at its first value, and pixels standardised."""
    network = Standardised(NETWORKS[kind].build(5, inputs))
    for _ in range(2):
        network(torch.rand(16, inputs, 16, 16))
    for name, tensor in network.state_dict().items():
        if name.endswith((".bias", ".weight")) and tensor.dim() == 1:
            tensor += 0.2 * torch.randn_like(tensor)
    network.mean.copy_(torch.rand(inputs))
    network.deviation.copy_(0.2 + torch.rand(inputs))
    return network.eval()


@torch.no_grad()
def hooked(network: Standardised, name: str, x: Tensor) -> Float[Tensor, "rows features"]:
    """What a layer gives, by a hook: copied, for a ReLU in place would write over it."""
    seen: list[Tensor] = []
    handle = network.backbone.get_submodule(name).register_forward_hook(lambda *call: seen.append(call[2].clone()))
    network(x)
    handle.remove()
    return seen[0] if seen[0].dim() == 2 else seen[0].mean((2, 3))


@pytest.mark.parametrize(("kind", "layer", "name", "features"), LAYERS)
def test_features_are_the_layers_mean_over_space(kind: str, layer: str, name: str, features: int) -> None:
    network, x = trained(kind), torch.rand(4, 3, 17, 16)
    extractor = FeatureExtractor(network, NETWORKS[kind], layer, normalise=False)
    assert (extractor.layer, extractor.features, extractor.inputs, extractor.classes) == (name, features, 3, 5)
    found = extractor(x)
    assert found.shape == (4, features)
    assert found.abs().max() > 1e-3
    torch.testing.assert_close(found, hooked(network, name, x), rtol=1e-4, atol=1e-5)
    lengths = found.square().sum(1, keepdim=True).sqrt()
    torch.testing.assert_close(FeatureExtractor(network, NETWORKS[kind], layer)(x), found / lengths)


def test_a_norm_before_a_relu_in_place_keeps_its_negative_numbers() -> None:
    network, x = trained("resnet9"), torch.rand(4, 3, 16, 16)
    extractor = FeatureExtractor(network, NETWORKS["resnet9"], "stem.0.1", normalise=False)
    weights, norm = network.state_dict(), "backbone.stem.0.1"
    h = (x - network.mean[:, None, None]) / network.deviation[:, None, None]
    h = torch.nn.functional.conv2d(h, weights["backbone.stem.0.0.weight"], padding=1).mean((2, 3))
    h = (h - weights[f"{norm}.running_mean"]) / (weights[f"{norm}.running_var"] + 1e-5).sqrt()
    torch.testing.assert_close(
        extractor(x), h * weights[f"{norm}.weight"] + weights[f"{norm}.bias"], rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(("height", "width", "side"), [(20, 23, 16), (17, 17, 17)])
def test_ten_views_are_averaged(height: int, width: int, side: int) -> None:
    network, x = trained("wrn"), torch.rand(3, 3, height, width)
    down, across = height - side, width - side
    crops = [
        x[:, :, :side, :side],
        x[:, :, :side, across:],
        x[:, :, down:, :side],
        x[:, :, down:, across:],
        x[:, :, down // 2 : down // 2 + side, across // 2 : across // 2 + side],
    ]
    crops += [crop.flip(3) for crop in crops]
    seen = torch.stack([hooked(network, "groups.2.0", crop) for crop in crops])
    expected = {"multiview": seen.mean(0), "center": seen[4]}
    for views, features in expected.items():
        for normalise in (True, False):
            extractor = FeatureExtractor(
                network, NETWORKS["wrn"], "middle", views=views, side=side, normalise=normalise
            )
            # Averaged, then scaled: not the other way round.
            scaled = features / features.norm(dim=1, keepdim=True) if normalise else features
            torch.testing.assert_close(extractor(x), scaled, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(extractor(x, batch=1), extractor(x), rtol=1e-4, atol=1e-5)
    if side < height:
        assert (expected["multiview"] - expected["center"]).abs().max() > 1e-3


def test_an_extractor_is_frozen() -> None:
    network, x = trained("wrn").train(), torch.rand(7, 3, 16, 16, dtype=torch.float64)
    extractor = FeatureExtractor(network, NETWORKS["wrn"])
    before, statistics = extractor(x), extractor.state_dict()
    assert network.training
    assert all(parameter.requires_grad for parameter in network.parameters())
    for mode in (True, False):
        assert extractor.train(mode) is extractor
        assert not any(module.training for module in extractor.modules())
    nn.ModuleList([extractor]).train()
    assert not any(module.training for module in extractor.modules())
    assert not any(parameter.requires_grad for parameter in extractor.parameters())
    nn.init.zeros_(network.backbone.get_submodule("stem").weight)  # it has weights of its own
    assert torch.equal(extractor(x), before)
    assert before.dtype == torch.float32
    assert not before.requires_grad
    for batch in (1, 3, 100):
        torch.testing.assert_close(extractor(x, batch=batch), before)
    assert extractor(x[:0]).shape == (0, 64)
    for name, tensor in extractor.state_dict().items():
        assert torch.equal(tensor, statistics[name])
    assert not any(module._forward_hooks for module in network.modules())


def test_it_computes_where_its_weights_are_and_in_their_dtype() -> None:
    elsewhere = FeatureExtractor(trained("resnet9").to("meta"), NETWORKS["resnet9"])
    assert elsewhere(torch.rand(3, 3, 16, 16)).device.type == "meta"
    network, x = trained("resnet9"), torch.rand(3, 3, 16, 16)
    single = FeatureExtractor(network, NETWORKS["resnet9"])(x)
    double = FeatureExtractor(network.double(), NETWORKS["resnet9"])(x)
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), single, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("inputs", [1, 3])
@pytest.mark.parametrize("kind", NETWORKS)
def test_a_file_gives_the_same_bits(kind: str, inputs: int, tmp_path: Path) -> None:
    x, random = torch.rand(5, inputs, 20, 20), torch.get_rng_state()
    extractor = FeatureExtractor(
        trained(kind, inputs), NETWORKS[kind], "last", views="multiview", side=16, normalise=False
    )
    extractor.save(tmp_path / "extractor.safetensors")
    torch.set_rng_state(random)
    loaded = FeatureExtractor.load(tmp_path / "extractor.safetensors")
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.equal(loaded(x), extractor(x))
    for name in ("layer", "views", "side", "normalise", "classes", "inputs", "features", "architecture"):
        assert getattr(loaded, name) == getattr(extractor, name), name


def test_files_that_are_no_extractors(tmp_path: Path) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    extractor = FeatureExtractor(trained("resnet9"), NETWORKS["resnet9"])
    extractor.save(good)
    with pytest.raises(FileNotFoundError):
        FeatureExtractor.load(tmp_path / "none")
    with safe_open(good, "pt") as file:
        settings = json.loads(file.metadata()["fewstep"])
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    needed = extractor.needed()
    assert not any("head" in name for name in needed), "what comes after its layer is not needed"
    rebuilt = FeatureExtractor.rebuilt(needed, extractor.metadata())
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(rebuilt(x), extractor(x))
    fewer = {name: tensor for name, tensor in weights.items() if name != max(needed)}
    contents: list[tuple[dict[str, Tensor], dict[str, Any] | None]] = [
        (weights, None),
        (weights, settings | {"layer": "groups.2.0"}),
        (weights, settings | {"more": 1}),
        (weights, settings | {"classes": 4}),
        (weights, settings | {"architecture": {"kind": "vgg"}}),
        (weights, {name: value for name, value in settings.items() if name != "inputs"}),
        (fewer, settings),
    ]
    for tensors, described in contents:
        write_tensors(bad, tensors, {} if described is None else {"fewstep": json.dumps(described)})
        with pytest.raises(ValueError, match="bad is damaged or is no feature extractor"):
            FeatureExtractor.load(bad)
    save_file(weights, bad, {"fewstep": json.dumps(settings)})
    undigested = bad.read_bytes()
    for content in (b"", b"no", good.read_bytes()[:-9], undigested):
        bad.write_bytes(content)
        with pytest.raises(ValueError, match="bad is damaged or is no feature extractor"):
            FeatureExtractor.load(bad)
    write_tensors(bad, weights, {"fewstep": json.dumps(settings)})
    FeatureExtractor.load(bad)
    flipped = bytearray(good.read_bytes())
    flipped[-1] ^= 1
    bad.write_bytes(flipped)
    with pytest.raises(ValueError, match="its contents do not match its digest"):
        FeatureExtractor.load(bad)


class Idle(Backbone):
    """A network with a layer that it does not use."""

    middle = last = "used"

    def __init__(self) -> None:
        super().__init__()
        self.inputs, self.used, self.idle = 1, nn.Conv2d(1, 2, 3), nn.Conv2d(1, 2, 3)
        self.head = nn.Linear(2, 3)

    @property
    def numbered(self) -> tuple[str, ...]:
        return ("used", "idle")

    @property
    def smallest(self) -> int:
        return 3

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.used(x).mean((2, 3)))
        return logits


def test_wrong_requests_are_refused() -> None:
    network, architecture = trained("resnet9"), NETWORKS["resnet9"]
    for wanted in ("0", "9"):
        with pytest.raises(ValueError, match=f"ResNet9 has layers 1 to 8, not {wanted}"):
            FeatureExtractor(network, architecture, wanted)
    for wanted in ("", "third", "stem.9"):
        with pytest.raises(ValueError, match=f"ResNet9 has no layer '{wanted}': .*such as stem, first, widen, second"):
            FeatureExtractor(network, architecture, wanted)
    with pytest.raises(ValueError, match="the layer 'idle' takes no part in the network's forward pass"):
        FeatureExtractor(Standardised(Idle()), architecture, "idle")
    assert FeatureExtractor(Standardised(Idle()), architecture, "1").features == 2
    with pytest.raises(ValueError, match="corners need a side"):
        FeatureExtractor(network, architecture, views="multiview")
    extractor = FeatureExtractor(network, architecture)
    with pytest.raises(ValueError, match=r"images must be \[rows, 3, height, width\], got \[2, 1, 16, 16\]"):
        extractor(torch.rand(2, 1, 16, 16))
    with pytest.raises(ValueError, match="views must have 8 pixels or more on either side, got 7"):
        extractor(torch.rand(2, 3, 16, 7))
    with pytest.raises(ValueError, match="views must have 8 pixels or more on either side, got 6"):
        FeatureExtractor(network, architecture, side=6)(torch.rand(2, 3, 16, 16))
    with pytest.raises(ValueError, match="side must be from 1 to 16"):
        FeatureExtractor(network, architecture, side=17)(torch.rand(2, 3, 16, 16))
