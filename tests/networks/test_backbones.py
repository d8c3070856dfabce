"""The networks of stage 1: the wide residual network, and ResNet-12 with running statistics."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewstep.networks.backbone import Backbone
from fewstep.networks.resnet12 import ResNet12
from fewstep.networks.wide_resnet import WideResNet

SMALL: dict[str, Any] = {"depth": 16, "width": 2}


def randomised(network: nn.Module) -> nn.Module:
    """In float64, with norms and running statistics away from zeros and ones."""
    for name, tensor in network.double().state_dict().items():
        if tensor.is_floating_point():
            tensor += 0.2 * (torch.rand_like(tensor) if "running_var" in name else torch.randn_like(tensor))
    return network


def activations(network: nn.Module, x: Tensor, *names: str) -> list[Tensor]:
    """Outputs of submodules, and the network's own as the last of them."""
    found: dict[str, Tensor] = {}
    handles = [
        network.get_submodule(name).register_forward_hook(lambda _, __, y, name=name: found.update({name: y}))
        for name in names
    ]
    y = network(x)
    for handle in handles:
        handle.remove()
    return [*(found[name] for name in names), y]


def convolutions(network: nn.Module, x: Tensor) -> list[tuple[str, int]]:
    """Name and width of every convolution, in the order of the forward pass."""
    order: list[tuple[str, int]] = []
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda _, __, y, name=name: order.append((name, y.shape[1])))
    network(x)
    return order


def on_meta(kind: type[Backbone], *arguments: Any, **others: Any) -> Any:
    """A network of shapes only, which is made and run at once."""
    with torch.device("meta"):
        return kind(*arguments, **others)


def test_wrn_28_10_has_the_published_number_of_parameters() -> None:
    def block(a: int, b: int) -> int:
        return 2 * a + 9 * a * b + 2 * b + 9 * b * b + (a * b if a != b else 0)  # norm, conv, norm, conv, shortcut

    groups = sum(block(a, b) + 3 * block(b, b) for a, b in pairwise((16, 160, 320, 640)))
    expected = 9 * 3 * 16 + groups + 2 * 640 + 640 * 10 + 10
    assert expected == 36_479_194  # the paper's 36.5 M
    assert sum(p.numel() for p in on_meta(WideResNet, 10).parameters()) == expected


@pytest.mark.parametrize(("strides", "size", "side"), [((1, 2, 2), 32, 8), ((2, 2, 2), 80, 10)])
def test_layer_21_of_wrn_28_10_is_the_first_block_of_640_channels(
    strides: tuple[int, ...], size: int, side: int
) -> None:
    network = on_meta(WideResNet, 64, strides=strides)
    x = torch.empty(2, 3, size, size, device="meta")
    order = convolutions(network, x)
    assert [width for _, width in order] == [16, *[160] * 9, *[320] * 9, *[640] * 9]
    assert len(network.numbered) == 28
    for (convolution, _), name in zip(order, network.numbered, strict=True):
        assert convolution == name == "stem" or convolution.rpartition(".")[0] == name
        assert isinstance(network.get_submodule(name), nn.Module)
    assert [name for name, _ in order[19:22]] == [f"groups.2.0.{part}" for part in ("first", "second", "shortcut")]
    assert network.layer("21") == network.layer("middle") == "groups.2.0"
    assert network.layer("19") == "groups.1.3"
    assert network.layer("last") == "end"
    middle, end, logits = activations(network, x, network.layer("21"), network.layer("last"))
    assert middle.shape == end.shape == (2, 640, side, side)
    assert logits.shape == (2, 64)


@pytest.mark.parametrize("depth", [10, 16, 40])
def test_every_depth_has_as_many_convolutions_and_the_same_middle(depth: int) -> None:
    network = on_meta(WideResNet, 5, depth=depth, width=2)
    order = convolutions(network, torch.empty(1, 3, 16, 16, device="meta"))
    assert len(order) == len(network.numbered) == depth
    first = next(i for i, (_, width) in enumerate(order) if width == 128)
    assert network.numbered[first] == network.middle
    assert network.numbered[first - 1] != network.middle


def restated(network: WideResNet, x: Tensor, width: int, strides: tuple[int, ...]) -> dict[str, Tensor]:
    """The forward pass in evaluation, by functions of the saved tensors: activations by layer, and the logits."""
    saved, out = network.state_dict(), {}

    def norm(h: Tensor, name: str) -> Tensor:
        mean, var, gain, shift = (saved[f"{name}.{k}"] for k in ("running_mean", "running_var", "weight", "bias"))
        scale = gain / (var + 1e-5).sqrt()
        return (h * scale[:, None, None] + (shift - mean * scale)[:, None, None]).clamp(min=0)

    h, channels = F.conv2d(x, saved["stem.weight"], padding=1), 16
    for g, stride in enumerate(strides):
        for b in range(2):
            at, step = f"groups.{g}.{b}", stride if b == 0 else 1
            a = out[f"{at}.before"] = norm(h, f"{at}.before.norm")
            branch = F.conv2d(a, saved[f"{at}.first.weight"], stride=step, padding=1)
            branch = F.conv2d(norm(branch, f"{at}.between.norm"), saved[f"{at}.second.weight"], padding=1)
            if step > 1 or channels != 16 * width * 2**g:
                h = F.conv2d(a[:, :, ::step, ::step], saved[f"{at}.shortcut.weight"])
            h, channels = h + branch, 16 * width * 2**g
            out[at] = h
    out["end"] = norm(h, "end.norm")
    out["logits"] = out["end"].mean((2, 3)) @ saved["head.weight"].T + saved["head.bias"]
    return out


@pytest.mark.parametrize(("width", "strides"), [(2, (1, 2, 2)), (2, (2, 2, 2)), (1, (2, 2, 2)), (1, (1, 1, 3))])
def test_the_wide_network_is_its_equations(width: int, strides: tuple[int, ...]) -> None:
    network = randomised(WideResNet(4, 2, depth=16, width=width, dropout=0.5, strides=strides)).eval()
    x = torch.randn(3, 2, 13, 13, dtype=torch.float64)
    assert activations(network, x, "groups.1.1.before.norm")[0].min() < 0  # no ReLU works on it in place
    expected = restated(network, x, width, strides)
    for name, tensor in zip(expected, activations(network, x, *list(expected)[:-1]), strict=True):
        torch.testing.assert_close(tensor, expected[name], rtol=1e-10, atol=1e-10, msg=lambda m, name=name: name + m)


def test_initial_weights_are_kaimings_by_fan_out() -> None:
    network = WideResNet(4, depth=10, width=4)
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            side, expected = module.kernel_size[0], (2 / (module.out_channels * module.kernel_size[0] ** 2)) ** 0.5
            assert module.bias is None
            assert side in (1, 3)
            assert module.weight.std().item() == pytest.approx(expected, rel=4 * (2 * module.weight.numel()) ** -0.5), (
                name
            )
    assert network.head.bias.abs().max() == 0


def test_dropout_zeroes_what_the_second_convolution_reads_in_training_only() -> None:
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    network = randomised(WideResNet(4, dropout=0.25, **SMALL))
    plain = WideResNet(4, **SMALL).double()
    plain.load_state_dict(network.state_dict())
    blocks = [f"groups.{g}.{b}" for g in range(3) for b in range(2)]
    read: dict[str, Tensor] = {}
    for name in blocks:
        second = network.get_submodule(f"{name}.second")
        second.register_forward_pre_hook(lambda _, inputs, name=name: read.update({name: inputs[0]}))
    rectified = [f"{name}.between.relu" for name in blocks]
    *before, _ = activations(network.train(), x, *rectified)
    for name, unit in zip(blocks, before, strict=True):
        dropped = read[name] == 0
        torch.testing.assert_close(read[name], torch.where(dropped, 0, unit / 0.75))
        assert dropped[unit > 0].double().mean().item() == pytest.approx(0.25, abs=0.08), name
        assert ((dropped & (unit > 0)).any((2, 3)) & ~dropped.all((2, 3))).any(), name  # units, not channels
    assert not torch.equal(network(x), network(x))

    network.load_state_dict(plain.state_dict())  # undo what training did to the running statistics
    *before, logits = activations(network.eval(), x, *rectified)
    assert all(torch.equal(read[name], unit) for name, unit in zip(blocks, before, strict=True))
    assert torch.equal(logits, plain.eval()(x))
    # And nowhere else: without the branches, training is the same with dropout and without.
    for model in (network.train(), plain.train()):
        for name in blocks:
            model.get_submodule(f"{name}.second").weight.data.zero_()
    assert torch.equal(network(x), plain(x))


def test_wrn_28_10_learns_a_batch_in_two_steps() -> None:
    network = WideResNet(10, dropout=0.5).train()
    x, y = torch.randn(2, 3, 16, 16), torch.tensor([3, 7])
    optimiser = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4)
    start, losses = {name: tensor.clone() for name, tensor in network.state_dict().items()}, []
    for _ in range(2):
        torch.manual_seed(1)  # the same units are dropped at every step, so that the losses can be compared
        loss = F.cross_entropy(network(x), y)
        optimiser.zero_grad()
        loss.backward()
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.abs().max() > 0, name
        optimiser.step()
        losses.append(loss.item())
    torch.manual_seed(1)
    with torch.no_grad():
        losses.append(F.cross_entropy(network(x), y).item())
    assert losses[2] < losses[1] < losses[0], losses
    assert losses[2] < losses[0] / 2, losses
    for name, tensor in network.state_dict().items():  # parameters, and running statistics
        assert not torch.equal(tensor, start[name]), name


@pytest.mark.parametrize("kind", [WideResNet, ResNet12])
def test_bfloat16_and_channels_last_compute_the_same(kind: type[Backbone]) -> None:
    others = SMALL if kind is WideResNet else {"widths": (8, 16), "norm": nn.BatchNorm2d}
    network, x = kind(4, 3, **others), torch.randn(4, 3, 16, 16)
    assert network(x).shape == (4, 4)  # a step of running statistics
    expected = network.eval()(x)
    last = network.to(memory_format=torch.channels_last)
    torch.testing.assert_close(last(x.to(memory_format=torch.channels_last)), expected, rtol=1e-4, atol=1e-4)
    network.train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = F.cross_entropy(network(x.to(memory_format=torch.channels_last)), torch.arange(4))
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = network.eval()(x)
    assert logits.dtype == torch.bfloat16
    torch.testing.assert_close(logits.float(), network(x), rtol=0.05, atol=0.05)


def test_layers_that_are_not_there_are_refused() -> None:
    network = on_meta(WideResNet, 5)
    assert network.layer("groups.2.1.before") == "groups.2.1.before"
    for wanted in ("0", "29"):
        with pytest.raises(ValueError, match=f"WideResNet has layers 1 to 28, not {wanted}"):
            network.layer(wanted)
    for wanted in ("groups.3.0", "", "block"):
        with pytest.raises(ValueError, match=rf"WideResNet has no layer '{wanted}'.*stem, groups\.0\.0"):
            network.layer(wanted)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 27}, r"depth must be 6n \+ 4 .*, got 27"),
        ({"depth": 4}, r"depth must be 6n \+ 4 .*, got 4"),
        ({"width": 0}, "must be positive; got 5, 3 and 0"),
        ({"classes": 0}, "must be positive; got 0, 3 and 10"),
        ({"strides": (2, 2)}, r"three positive numbers, one a group; got \(2, 2\)"),
        ({"strides": (0, 2, 2)}, r"three positive numbers, one a group; got \(0, 2, 2\)"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\).* got 1.0"),
        ({"dropout": -0.1}, r"dropout must be in \[0, 1\).* got -0.1"),
    ],
)
def test_wrong_wide_networks_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WideResNet(**{"classes": 5, **arguments})


def test_resnet12_normalises_by_running_statistics_where_it_is_told_to() -> None:
    ours = randomised(ResNet12(5, 3, (4, 6)))
    torchs = ResNet12(5, 3, (4, 6), norm=nn.BatchNorm2d).double()
    missing, unexpected = torchs.load_state_dict(ours.state_dict(), strict=False)
    assert {name.rpartition(".")[2] for name in missing} == {"running_mean", "running_var"}
    assert len(missing) == 2 * 8
    assert not unexpected
    x = torch.randn(6, 3, 13, 13, dtype=torch.float64)
    expected = ours(x)
    torch.testing.assert_close(torchs.train()(x), expected)
    assert (torchs.eval()(x) - expected).abs().max() > 0.1  # one step of an average is not the batch's

    read: dict[nn.BatchNorm2d, Tensor] = {}
    for norm in (module for module in torchs.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.register_forward_pre_hook(lambda norm, inputs: read.update({norm: inputs[0].detach()}))
    torchs.train()(x)
    for norm, h in read.items():
        norm.running_mean, norm.running_var = h.mean((0, 2, 3)), h.var((0, 2, 3), correction=0)
    torch.testing.assert_close(torchs.eval()(x), expected)
    torch.testing.assert_close(torchs(x[:2]), expected[:2])  # whatever the other rows
    assert (ours(x[:2]) - expected[:2]).abs().max() > 0.1


def test_layers_of_resnet12_are_its_blocks() -> None:
    network = on_meta(ResNet12, 64)
    x = torch.empty(2, 3, 84, 84, device="meta")
    order = convolutions(network, x)
    assert len(order) == len(network.numbered) == 16
    for (convolution, width), name in zip(order, network.numbered, strict=True):
        assert convolution.startswith(f"{name}.")
        assert width == (64, 160, 320, 640)[int(name[-1])]
    assert (network.layer("middle"), network.layer("last"), network.layer("9")) == ("blocks.2", "blocks.3", "blocks.2")
    middle, last, _ = activations(network, x, "blocks.2", "blocks.3")
    assert (middle.shape, last.shape) == ((2, 320, 10, 10), (2, 640, 5, 5))
    assert [on_meta(ResNet12, 5, widths=(4,) * n).layer("last") for n in (1, 2, 5)] == [
        f"blocks.{n}" for n in (0, 1, 4)
    ]
    with pytest.raises(ValueError, match="ResNet12 has layers 1 to 16, not 17"):
        network.layer("17")


@pytest.mark.parametrize(("kind", "smallest"), [(WideResNet, 1), (ResNet12, 16)])
def test_the_smallest_image_is_taken_and_no_smaller(kind: type[Backbone], smallest: int) -> None:
    network = on_meta(kind, 5, inputs=2)
    assert (network.inputs, network.smallest) == (2, smallest)
    assert network(torch.empty(2, 2, smallest, smallest, device="meta")).shape == (2, 5)
    with pytest.raises(RuntimeError):
        network(torch.empty(2, 2, smallest - 1, smallest - 1, device="meta"))
