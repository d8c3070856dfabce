import math
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import SMALL, everything, pictures
from safetensors.torch import load_file
from torch import Tensor

import fewstep.training.pretraining.pretrainer
from fewstep.data import Augmentation, Dataset
from fewstep.training import Stopped, stoppable
from fewstep.training.checkpoint import BEST, LAST, State, load_checkpoint, read_state
from fewstep.training.pretraining import Architecture, Pretrainer, Pretraining, Standardised, pretrain
from fewstep.training.pretraining.batches import Batches
from fewstep.training.stopping import poll

Scripted = Callable[[Standardised], dict[str, float]]


def weights(network: torch.nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_learns_and_depends_on_the_seed_alone() -> None:
    data, options, seen = pictures(), replace(SMALL, epochs=12), []
    torch.manual_seed(5)
    states = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    first = pretrain(data, options, seed=1, progress=lambda *call: seen.append((call[0].step, call[1])))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]  # noqa: NPY002
    torch.manual_seed(6)
    assert same(weights(first), weights(pretrain(data, options, seed=1)))
    other = weights(pretrain(data, options, seed=2))
    assert not torch.equal(first.backbone.head.weight, other["backbone.head.weight"])
    assert [step for step, _ in seen] == list(range(5, 61, 5))  # five batches an epoch: fewer than are looked at
    assert seen[-1][1]["loss"] < 0.7 * seen[0][1]["loss"]
    assert seen[0][1]["accuracy"] < 0.7 < seen[-1][1]["accuracy"]
    assert not first.training
    with torch.no_grad():
        unseen = first(everything(pictures(seed=9))).argmax(1)
    assert (unseen.numpy() == data.labels).mean() > 0.8


def test_other_accelerators_random_states_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    seeded: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    network = Architecture("wrn", depth=10, factor=1, dropout=0.5)
    pretrain(pictures(), replace(SMALL, network=network, epochs=1), seed=1)
    assert not seeded


@pytest.mark.parametrize("precision", ["auto", "bfloat16"])
def test_other_precisions_run(precision: str) -> None:
    network = pretrain(pictures(), replace(SMALL, precision=precision, epochs=1), seed=0)
    assert next(network.parameters()).dtype == torch.float32
    exact = pretrain(pictures(), replace(SMALL, precision="float32", epochs=1), seed=0)
    rounded = Pretraining(precision=precision).resolved("cpu").precision != "float32"
    assert same(weights(network), weights(exact)) is not rounded


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_steps_are_those_of_a_loop_by_hand(optimiser: str) -> None:
    options = replace(SMALL, optimiser=optimiser, label_smoothing=0.2, rate=0.05, weight_decay=0.1)
    data, looks = pictures(), []
    run = Pretrainer(data, options, seed=4)
    network, batches, total = run.network.backbone, Batches(data, 8, options.augmentation, 4, run.device), 15
    pixels = np.asarray(data.store, np.float64) / 255
    mean, deviation = float(pixels.mean()), float(pixels.std())
    start = weights(run.network)

    copy = options.network.build(data.classes, 1).train()
    copy.load_state_dict(network.state_dict())
    copy.to(memory_format=torch.channels_last)
    kinds = {
        "sgd": lambda p: torch.optim.SGD(p, 1.0, momentum=0.9, nesterov=True, weight_decay=0.1),
        "adamw": lambda p: torch.optim.AdamW(p, 1.0, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1),
    }
    optim, losses, right = kinds[optimiser](copy.parameters()), [], []
    for step in range(total):
        # The rate rises from a 25th during the first 0.2 · 15 = 3 steps.
        shape = (
            1 / 25 + 24 / 25 * (0.5 - 0.5 * math.cos(math.pi * step / 3))
            if step < 3
            else 0.5 + 0.5 * math.cos(math.pi * (step - 3) / 12)
        )
        optim.param_groups[0]["lr"] = 0.05 * shape
        x, y = batches.at(step)
        log = copy((x - mean) / deviation).log_softmax(1)
        target = 0.8 * torch.nn.functional.one_hot(y, 4) + 0.2 / 4
        loss = -(target * log).sum(1).mean()
        optim.zero_grad()
        loss.backward()
        optim.step()
        losses.append(loss.item())
        right.append((log.argmax(1) == y).float().mean().item())

    found = run.run(lambda _, values: looks.append((values["loss"], values["accuracy"])))
    for name, tensor in copy.state_dict().items():
        torch.testing.assert_close(found.backbone.state_dict()[name], tensor, rtol=1e-3, atol=1e-4)
        assert not torch.equal(tensor, start[f"backbone.{name}"]), name
    expected = np.stack([np.reshape(losses, (3, 5)).mean(1), np.reshape(right, (3, 5)).mean(1)], 1)
    np.testing.assert_allclose(looks, expected, rtol=1e-3)


@pytest.mark.parametrize("kept", [True, False])
def test_the_best_network_is_kept_and_patience_ends_training(kept: bool, tmp_path: Path) -> None:
    scores, seen, modes = [0.3, 0.6, 0.6, 0.5, 0.9], [], []

    def validate(network: Standardised) -> dict[str, float]:
        modes.append(network.training or torch.is_grad_enabled())
        seen.append(weights(network))
        return {"first": scores[len(seen) - 1], "second": float(len(seen))}

    run = Pretrainer(
        pictures(), replace(SMALL, epochs=5), seed=0, folder=tmp_path if kept else None, validate=validate, patience=2
    )
    found = run.run(lambda *_: modes.append(not run.network.training))
    assert modes == [False] * 8  # four epochs, in the right mode when validating and after it
    assert (run.state.step, run.state.best, run.state.best_step, run.state.stale) == (20, 0.6, 10, 2)
    assert run.state.finished
    assert same(weights(found), seen[1])
    assert not same(seen[0], seen[1])
    if not kept:
        return
    best, last = (Pretrainer(pictures(), SMALL, seed=7).network for _ in range(2))
    load_checkpoint(tmp_path / "best.safetensors", best)
    load_checkpoint(tmp_path / "last.safetensors", last)
    assert same(weights(best), seen[1])
    assert same(weights(last), seen[3])
    rows = [line.split(",") for line in (tmp_path / "metrics.csv").read_text().splitlines()]
    assert [(int(step), name, float(value)) for step, split, name, value in rows[1:] if split == "validation"] == [
        (5 * epoch, name, value)
        for epoch in (1, 2, 3, 4)
        for name, value in (("first", scores[epoch - 1]), ("second", epoch))
    ]
    assert [float(row[3]) for row in rows[1:] if row[2] == "rate"] == [
        replace(SMALL, epochs=5).rate_at(step, 25) for step in (4, 9, 14, 19)
    ]


@pytest.mark.parametrize("where", [("batch", 7), ("batch", 9), ("validation", 10)])
def test_a_signal_leaves_a_checkpoint_that_goes_on_to_the_same_bits(where: tuple[str, int], tmp_path: Path) -> None:
    """Of five batches an epoch: in the middle of one, in its last batch, and in the validation after it."""
    options, send = replace(SMALL, epochs=3), lambda: os.kill(os.getpid(), signal.SIGTERM)

    def make(folder: Path) -> Pretrainer:
        return Pretrainer(pictures(), options, seed=1, folder=folder, validate=validate)

    def validate(network: Standardised) -> dict[str, float]:
        return {"score": float(next(network.parameters()).detach().sum())}

    make(tmp_path / "whole").run()
    stopped, folder = make(tmp_path / "stopped"), tmp_path / "stopped"
    advance = stopped.advance

    def sending(x: Tensor, y: Tensor) -> Tensor:
        if where == ("batch", stopped.state.step):
            send()
        return advance(x, y)

    def validating(network: Standardised) -> dict[str, float]:
        if where == ("validation", stopped.state.step):
            send()
            poll()  # as between two batches of images
        return validate(network)

    stopped.advance, stopped.validate = sending, validating
    with pytest.raises(Stopped), stoppable():
        stopped.run()
    state = read_state(folder / LAST)
    assert state.step == (where[1] if where[0] == "validation" else where[1] + 1)
    assert state.due == (where[0] == "validation")
    make(folder).run()
    for name in (LAST, BEST):
        ours, theirs = load_file(folder / name), load_file(tmp_path / "whole" / name)
        assert same(ours, theirs)
    assert (folder / "metrics.csv").read_bytes() == (tmp_path / "whole" / "metrics.csv").read_bytes()


def test_without_validation_the_last_network_is_the_best(tmp_path: Path) -> None:
    run = Pretrainer(pictures(), SMALL, seed=0, folder=tmp_path, patience=1)
    found = run.run()
    assert (run.state.step, run.state.best, run.state.best_step) == (15, None, 15)
    assert same(weights(found), weights(pretrain(pictures(), SMALL, seed=0)))


def test_the_log_has_the_means_of_each_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fewstep.training.pretraining.pretrainer, "LOG_EVERY", 1)
    looks: list[float] = []
    Pretrainer(pictures(), SMALL, seed=0, folder=tmp_path).run(lambda _, values: looks.append(values["loss"]))
    rows = [line.split(",") for line in (tmp_path / "metrics.csv").read_text().splitlines()]
    found = [(int(row[0]), float(row[3])) for row in rows if row[1:3] == ["train", "loss"]]
    assert [step for step, _ in found] == [5, 10, 15]
    np.testing.assert_allclose([loss for _, loss in found], np.reshape(looks, (3, 5)).mean(1), rtol=1e-6)


def test_a_loss_that_is_not_finite_ends_it_and_spares_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fewstep.training.pretraining.pretrainer, "LOG_EVERY", 2)
    # The 8th of 15 steps has a rate of 1e38; its next look at the loss is after the 9th.
    options = replace(SMALL, optimiser="sgd", schedule="steps", milestones=(7 / 15,), decay=1e40)
    run = Pretrainer(pictures(), options, seed=0, folder=tmp_path, checkpoint_seconds=0.0)
    kept: dict[int, bytes] = {}

    def progress(state: State, values: dict[str, float]) -> None:
        assert math.isfinite(values["loss"])
        kept[state.step] = (tmp_path / "last.safetensors").read_bytes()

    with pytest.raises(FloatingPointError, match=r"the loss became (nan|inf) before step 9 of 15; lower the rate"):
        run.run(progress)
    assert max(kept) == 7
    assert (tmp_path / "last.safetensors").read_bytes() == kept[7]
    again = Pretrainer(pictures(), options, seed=0, folder=tmp_path)
    assert again.state.step == 7
    assert all(tensor.isfinite().all() for tensor in again.network.state_dict().values())
    assert not any(thread.name.startswith("batches") for thread in threading.enumerate())


def test_weights_that_the_last_step_threw_out_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fewstep.training.pretraining.pretrainer, "LOG_EVERY", 2)
    step = Pretrainer.advance

    def exploding(self: Pretrainer, *batch: Tensor) -> Tensor:
        seen = step(self, *batch)
        if self.state.step == 6:  # the last one before a look, which finds finite losses
            self.parameters[0].data[0] = math.inf
        return seen

    monkeypatch.setattr(Pretrainer, "advance", exploding)
    with pytest.raises(FloatingPointError, match="weights are not finite after step 7 of 15"):
        Pretrainer(pictures(), SMALL, seed=0, folder=tmp_path, checkpoint_seconds=0.0).run()
    again = Pretrainer(pictures(), SMALL, seed=0, folder=tmp_path)
    assert again.state.step == 5
    assert all(tensor.isfinite().all() for tensor in again.network.state_dict().values())


def test_a_dataset_smaller_than_a_batch_is_one_batch() -> None:
    steps: list[int] = []
    pretrain(
        pictures(), replace(SMALL, batch=1000, epochs=2), seed=0, progress=lambda state, _: steps.append(state.step)
    )
    assert steps == [1, 2]


def test_what_cannot_be_learned_from_is_refused() -> None:
    with pytest.raises(ValueError, match="has 1 class; at least 2"):
        Pretrainer(pictures(1), SMALL, seed=0)
    with pytest.raises(ValueError, match=r"rows of shape \[3\]; images \[channels, height, width\] are needed"):
        Pretrainer(Dataset.from_labels(torch.rand(4, 3), [0, 0, 1, 1]), SMALL, seed=0)
    with pytest.raises(ValueError, match=r"images of \[8, 8\] pixels, as the network sees them; ConvNet needs 16"):
        Pretrainer(pictures(), replace(SMALL, network=Architecture(widths=(2,) * 4, pools=4)), seed=0)


# --- batches


def numbered() -> Dataset:
    """Images whose pixels are their own number, of three classes, unsorted."""
    rows = torch.arange(22.0)[:, None, None, None].expand(22, 2, 4, 4)
    return Dataset.from_labels(rows, [str(i % 3) for i in range(22)])


def batches(data: Dataset, augmentation: Augmentation | None = None) -> Batches:
    return Batches(data, 6, augmentation or Augmentation(), 3, torch.device("cpu"))


def test_batches_are_addressed_by_step_and_hold_every_image_once() -> None:
    source, epochs = batches(numbered()), []
    assert len(source) == 3
    for epoch in range(3):
        seen: list[float] = []
        for step in range(3 * epoch, 3 * epoch + 3):
            x, y = source.at(step)
            assert x.shape == (6, 2, 4, 4)
            assert x.is_contiguous(memory_format=torch.channels_last)
            assert torch.equal(x[:, 0, 0, 0] % 3, y.float())
            seen += x[:, 1, 2, 3].tolist()
        assert len(set(seen)) == 18  # of 22
        epochs.append(seen)
    assert epochs[0] != epochs[1] != epochs[2]
    assert len({*epochs[0], *epochs[1], *epochs[2]}) > 18  # others are left out
    for step in (7, 0, 4, 8, 4):
        assert source.at(step)[0][:, 0, 0, 0].tolist() == epochs[step // 3][6 * (step % 3) : 6 * (step % 3) + 6]
    other = Batches(numbered(), 6, Augmentation(), 4, torch.device("cpu"))
    assert not torch.equal(other.at(0)[0], source.at(0)[0])


def test_an_image_is_augmented_otherwise_every_time() -> None:
    data = Dataset.from_sorted(torch.rand(1, 1, 8, 8).expand(12, 1, 8, 8).contiguous(), [0, 6, 12])
    source = batches(data, Augmentation(2, True))
    distinct = {tuple(image.flatten().tolist()) for step in range(4) for image in source.at(step)[0]}
    assert len(distinct) > 12  # of 50 that there are; 6 if every step were alike
    assert torch.equal(source.at(2)[0], batches(data, Augmentation(2, True)).at(2)[0])


def test_batches_made_ahead_are_the_same() -> None:
    expected = [batches(numbered(), Augmentation(1)).at(step) for step in range(2, 8)]
    with batches(numbered(), Augmentation(1)).ahead(2, 8) as fetch:
        for x, y in expected:
            found = fetch()
            assert torch.equal(found[0], x)
            assert torch.equal(found[1], y)


def test_an_error_of_the_thread_surfaces() -> None:
    def failing(rows: Tensor) -> Tensor:
        if (rows == 17).any():
            raise RuntimeError("the disk is gone")
        return rows

    taken = 0

    def take() -> None:
        nonlocal taken
        with batches(numbered().transformed(failing)).ahead(0, 100) as fetch:
            for taken in range(100):  # noqa: B007
                fetch()

    with pytest.raises(RuntimeError, match="the disk is gone"):
        take()
    sound = [not (batches(numbered()).at(step)[0] == 17).any() for step in range(100)]
    assert taken == sound.index(False)
    assert not any(thread.name.startswith("batches") for thread in threading.enumerate())


# --- standardised


@pytest.mark.parametrize("floating", [False, True])
def test_standardised_pixels_have_mean_0_and_deviation_1(floating: bool) -> None:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (30, 3, 5, 6), dtype=np.uint8) // np.array([1, 2, 9], np.uint8)[:, None, None]
    pixels[:, 2] = 200  # a channel that never changes
    rows = torch.from_numpy(pixels / 255) if floating else pixels
    data, read = Dataset.from_sorted(rows, [0, 10, 30]), []
    network = Standardised(Architecture(widths=(2,), pools=0).build(2, 3))
    network.measure(data)
    exact = pixels / 255
    np.testing.assert_allclose(network.mean, exact.mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(network.deviation[:2], exact.std((0, 2, 3))[:2], rtol=1e-6)
    assert network.deviation[2] == 1
    network.backbone.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    network(everything(data))
    torch.testing.assert_close(read[0].mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(read[0].std((0, 2, 3), correction=0), torch.tensor([1.0, 1.0, 0.0]), atol=1e-5, rtol=0)
