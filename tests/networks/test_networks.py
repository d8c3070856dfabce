"""Networks against others that are written with torch's own layers."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewstep.networks import BatchNorm, Conv4, ResNet12, conv4
from fewstep.networks.four_blocks import PRESETS
from fewstep.recipes.methods.network import Network
from fewstep.recipes.problems.problem import Problem


def norm(x: Tensor, layer: BatchNorm) -> Tensor:
    return F.batch_norm(x, None, None, layer.weight, layer.bias, training=True, eps=layer.eps)


def strided(h: Tensor, convolution: nn.Conv2d, layer: BatchNorm) -> Tensor:
    return F.relu(norm(F.conv2d(h, convolution.weight, convolution.bias, stride=2, padding=1), layer))


def pooled(h: Tensor, convolution: nn.Conv2d, layer: BatchNorm) -> Tensor:
    return F.max_pool2d(F.relu(norm(F.conv2d(h, convolution.weight, convolution.bias, padding=1), layer)), 2)


def leaky(h: Tensor, convolution: nn.Conv2d, layer: BatchNorm) -> Tensor:
    h = norm(F.conv2d(h, convolution.weight, convolution.bias, padding=1), layer)
    return F.max_pool2d(F.leaky_relu(h, 0.01), 2)


def pooled_first(h: Tensor, convolution: nn.Conv2d, layer: BatchNorm) -> Tensor:
    h = norm(F.conv2d(h, convolution.weight, convolution.bias, padding=1), layer)
    h = F.pad(h, (0, h.shape[3] % 2, 0, h.shape[2] % 2), value=-torch.inf)  # "same" pads at the right and bottom
    return F.relu(F.max_pool2d(h, 2))


# size of images, block, γ, features of the readout, parameters of a 5-way network on grey or colour images
PAPERS = {
    "maml": (28, strided, False, 64, 112_005),
    "maml-mini": (84, pooled, False, 800, 32_773),
    "reptile": (28, strided, True, 256, 113_221),
    "reptile-mini": (84, pooled_first, True, 1152, 34_661),
    "imaml": (28, strided, True, 256, 113_221),
    "protonet": (84, pooled, True, 1600, 121_093),
    "meta-lstm": (84, pooled, True, 800, 32_901),
    "cavia": (84, pooled, True, 800, 32_901),
    "maml-plus-plus": (84, leaky, True, 1200, 70_085),
}


@pytest.mark.parametrize("preset", PRESETS)
def test_a_papers_network_is_what_the_paper_says(preset: str) -> None:
    size, block, scale, features, parameters = PAPERS[preset]
    torch.manual_seed(0)
    network = conv4(preset, 5, inputs=1 if size == 28 else 3, size=size).double()
    for parameter in network.parameters():  # away from zeros and ones
        parameter.data += 0.1 * torch.randn_like(parameter)
    x = torch.rand(6, 1 if size == 28 else 3, size, size, dtype=torch.float64)
    h, convolutions, norms = (
        x,
        *([m for m in network.modules() if isinstance(m, kind)] for kind in (nn.Conv2d, BatchNorm)),
    )
    for convolution, layer in zip(convolutions, norms, strict=True):
        assert (layer.weight is not None) is scale
        h = block(h, convolution, layer)
    h = h.mean((2, 3)) if preset == "maml" else h.reshape(6, -1)
    assert h.shape[1] == network.head.in_features == features
    assert sum(p.numel() for p in network.parameters()) == parameters
    torch.testing.assert_close(network(x), F.linear(h, network.head.weight, network.head.bias))


def test_initial_weights_are_the_papers() -> None:
    torch.manual_seed(0)
    second = {preset: [m for m in conv4(preset, 20).modules() if isinstance(m, nn.Conv2d)][1] for preset in PRESETS}
    glorot, torchs = (6 / (2 * 9 * 64)) ** 0.5, (9 * 64) ** -0.5  # of 64 channels
    bounds = {"maml": glorot, "reptile": glorot, "imaml": 1.73 * glorot, "protonet": torchs}
    for preset, bound in (bounds | {"cavia": (6 / (9 * 32)) ** 0.5}).items():
        assert 0.99 * bound < second[preset].weight.abs().max() <= bound, preset
    biases = second["imaml"].bias
    assert biases.min() >= 0
    assert 0.04 < biases.max() < 0.05
    assert second["maml"].bias.abs().max() == 0
    assert conv4("maml", 20).head.weight.detach().std() == pytest.approx(1, abs=0.05)
    assert conv4("maml-mini", 20, inputs=3, size=84).head.weight.abs().max() <= (6 / 820) ** 0.5


def test_maml_mini_has_the_published_number_of_features_on_cifar() -> None:
    assert conv4("maml-mini", 5, inputs=3, size=32).head.in_features == 32 * 2 * 2


class Block(nn.Module):
    """A residual block of torch's own layers."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__()
        self.c = nn.ModuleList(
            [
                nn.Conv2d(a, b, 3, padding=1, bias=False),
                nn.Conv2d(b, b, 3, padding=1, bias=False),
                nn.Conv2d(b, b, 3, padding=1, bias=False),
                nn.Conv2d(a, b, 1, bias=False),
            ]
        )
        self.n = nn.ModuleList([nn.BatchNorm2d(b) for _ in range(4)])

    def forward(self, x: Tensor) -> Tensor:
        h = F.leaky_relu(self.n[0](self.c[0](x)), 0.1)
        h = F.leaky_relu(self.n[1](self.c[1](h)), 0.1)
        h = self.n[2](self.c[2](h)) + self.n[3](self.c[3](x))
        return F.max_pool2d(F.leaky_relu(h, 0.1), 2)


def test_resnet12_is_three_convolutions_and_a_shortcut_in_each_block() -> None:
    torch.manual_seed(0)
    ours = ResNet12(5, 3, (4, 6)).double()
    theirs = nn.Sequential(Block(3, 4), Block(4, 6)).double()
    for block, other in zip(ours.blocks, theirs, strict=True):
        layers = [*block.branch, *block.shortcut]
        for kind, targets in ((nn.Conv2d, other.c), (BatchNorm, other.n)):
            for layer, target in zip([m for m in layers if isinstance(m, kind)], targets, strict=True):
                for parameter in layer.parameters():
                    parameter.data += 0.2 * torch.randn_like(parameter)
                target.load_state_dict(layer.state_dict(), strict=False)
    x = torch.rand(5, 3, 13, 13, dtype=torch.float64)
    torch.testing.assert_close(ours(x), F.linear(theirs(x).mean((2, 3)), ours.head.weight, ours.head.bias))
    assert sum(p.numel() for p in ResNet12(None).parameters()) == 12_424_320  # MetaOptNet's widths


def test_mamls_fully_connected_network() -> None:
    problem = Problem(lambda *_: None, (1, 28, 28), 5, {})
    network = Network("maml-fc").build(problem)
    linear = [m for m in network if isinstance(m, nn.Linear)]
    assert [m.in_features for m in linear] + [linear[-1].out_features] == [784, 256, 128, 64, 64, 5]
    assert all(m.weight.abs().max() <= 0.02 and m.bias.abs().max() == 0 for m in linear)
    x = torch.rand(7, 1, 28, 28)
    h = x.flatten(1)
    for layer, normal in zip(linear[:-1], [m for m in network if isinstance(m, BatchNorm)], strict=True):
        assert normal.weight is None
        assert normal.eps == 1e-3
        h = F.relu(norm(layer(h), normal))
    torch.testing.assert_close(network(x), linear[-1](h))


def test_wrong_networks_are_refused() -> None:
    with pytest.raises(ValueError, match="no preset 'resnet'; choose one of maml"):
        conv4("resnet", 5)
    with pytest.raises(ValueError, match="images of side 8 are too small for 4 blocks"):
        Conv4(5, downsample="pool", readout="flatten", size=8)
    vectors = Problem(lambda *_: None, (128,), 5, {})
    with pytest.raises(
        ValueError, match=r"maml is a network for square images; the data gives inputs of shape \[128\]"
    ):
        Network("maml").build(vectors)
    with pytest.raises(ValueError, match=r"mlp is a network for vectors"):
        Network("mlp").build(Problem(lambda *_: None, (1, 28, 28), 5, {}))
    with pytest.raises(ValueError, match="at least one block"):
        ResNet12(5, widths=())
