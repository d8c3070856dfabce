import csv
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from resume_driver import OPTIONS, trainer
from safetensors import safe_open
from safetensors.torch import save_file

from fewstep.algorithms import maml, reptile, residual_prototypes
from fewstep.core import L2, Method, regression
from fewstep.data import Dataset, EpisodeSampler, Sinusoids
from fewstep.evaluation import evaluate
from fewstep.networks import Conv4, mlp
from fewstep.training import Training, load_checkpoint, save_checkpoint
from fewstep.training.candidates import candidates
from fewstep.training.checkpoint import LAST, State, read_state
from fewstep.training.gradients import all_finite, clip
from fewstep.training.trainer import Trainer


def test_clipping_is_by_value_then_by_each_tensors_norm() -> None:
    # [3, 0.05] → value → [0.1, 0.05] → norm 0.1118 → scaled to 0.1; the second tensor is within both limits.
    gradients = [torch.tensor([3.0, -0.05]), torch.tensor([0.03, 0.04])]
    clip(gradients, 0.1, 0.1, "tensor")
    torch.testing.assert_close(gradients[0], torch.tensor([0.1, -0.05]) * 0.1 / (0.1**2 + 0.05**2) ** 0.5)
    assert torch.equal(gradients[1], torch.tensor([0.03, 0.04]))


def test_global_clipping_keeps_proportions() -> None:
    gradients = [torch.tensor([3.0]), torch.tensor([4.0])]
    clip(gradients, None, 1.0, "global")
    torch.testing.assert_close(torch.cat(gradients), torch.tensor([0.6, 0.8]))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_finiteness(bad: float) -> None:
    good = [torch.ones(3), torch.zeros(2)]
    assert all_finite(torch.tensor(1.0), good)
    assert not all_finite(torch.tensor(bad), good)
    assert not all_finite(torch.tensor(1.0), [*good, torch.tensor([0.0, bad])])


def test_finite_numbers_are_finite_where_their_norm_overflows() -> None:
    large = torch.full((4,), 3e38)
    assert large.norm().isinf()
    assert all_finite(torch.tensor(1.0), [torch.ones(3), large])
    assert not all_finite(torch.tensor(1.0), [torch.tensor([float("nan")]), large])


def poisoned(folder: Path, nonfinite: str) -> Trainer:
    """A trainer whose next task batch holds a NaN."""
    run = trainer(folder)
    run.options = Training(steps=1, clip_value=0.1, clip_norm=0.1, nonfinite=nonfinite)  # type: ignore[arg-type]
    return run


def step_with_nan(run: Trainer) -> dict[str, torch.Tensor]:
    before = {name: p.detach().clone() for name, p in run.method.learner.named_parameters()}
    tasks, draws = run.inputs(0)
    tasks.query.x[0, 0, 0] = float("nan")
    run.step(tasks, draws)
    return before


def test_the_best_validations_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The two best of scripted scores; of equals the earlier one, and never what is not a number.

    They are found while a training goes on that deletes one of them, and files that are named alike stay.
    """
    scores = dict(zip(range(10, 70, 10), [0.1, 0.5, 0.3, float("nan"), 0.5, 0.2], strict=True))
    options = replace(OPTIONS, steps=60, keep=2, patience=0, average=None)
    run, then = trainer(tmp_path, options), {}

    def scripted(method: Method) -> float:
        then[run.state.step] = {n: t.clone() for n, t in method.learner.state_dict().items()}
        return scores[run.state.step]

    def train_meanwhile(path: Path, word: str) -> State:
        if "best-at" in path.name and not run.state.finished:
            run.run()
        return read_state(path, word)

    run.validate = scripted
    own = tmp_path / "best-at-home.safetensors"
    own.touch()
    while run.state.step < 40:
        run.advance()
    assert run.state.kept == {"20": 0.5, "30": 0.3}
    monkeypatch.setattr("fewstep.training.candidates.read_state", train_meanwhile)
    both = candidates(tmp_path)
    assert own.exists()
    own.unlink()
    assert run.state.kept == {"20": 0.5, "50": 0.5}
    assert sorted(path.name for path in tmp_path.glob("best-at-*")) == [f"best-at-{n}.safetensors" for n in (20, 50)]
    for found, step in zip(both, (20, 50), strict=True):
        assert all(torch.equal(found[name], tensor) for name, tensor in then[step].items())
    (tmp_path / "best-at-20.safetensors").write_bytes((tmp_path / "best-at-50.safetensors").read_bytes())
    with pytest.raises(ValueError, match=r"best-at-20\.safetensors is of step 50"):
        candidates(tmp_path)
    (tmp_path / "best-at-20.safetensors").unlink()
    for again in (candidates, lambda folder: trainer(folder, options)):
        with pytest.raises(ValueError, match=r"best-at-20\.safetensors is not there: restore it, or delete last"):
            again(tmp_path)
    (tmp_path / LAST).write_bytes(b"")
    with pytest.raises(ValueError, match=r"last\.safetensors is damaged"):
        candidates(tmp_path)


def test_several_are_not_kept_where_settings_are_chosen_for_one(tmp_path: Path) -> None:
    data = Dataset.from_labels(torch.randn(40, 16), np.repeat(np.arange(8), 5))
    source = EpisodeSampler(data, ways=5, shots=1, queries=3, tasks=4, seed=0)
    with pytest.raises(ValueError, match=r"leave training\.keep at 1"):
        Trainer(residual_prototypes(16), source, replace(OPTIONS, keep=2), lambda _: 0.0, folder=tmp_path)


def test_a_thousand_nonfinite_steps_are_counted_and_not_all_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = poisoned(tmp_path, "skip")
    tasks, draws = run.inputs(0)
    tasks.query.x[0, 0, 0] = float("nan")
    with caplog.at_level(logging.WARNING):
        for _ in range(12):
            run.step(tasks, draws)
    assert run.state.nonfinite == 12
    assert [record.args[-1] for record in caplog.records] == [1, 2, 3, 10]


def test_nonfinite_step_follows_the_l2_gradient_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What the LEO authors intended: 1e-4·W for the penalised matrices, clipped, to Adam; the rates stay."""
    run = poisoned(tmp_path, "decay")
    with caplog.at_level(logging.WARNING):
        before = step_with_nan(run)
    assert run.state.nonfinite == 1
    assert "not finite" in caplog.text
    penalised = {name for r in run.method.regularisers if isinstance(r, L2) for name in r.parameters}
    for name, parameter in run.method.learner.named_parameters():
        if name in penalised:
            expected = before[name] * 1e-4
            expected = expected * min(1.0, 0.1 / expected.norm().item())
            torch.testing.assert_close(parameter.grad, expected)
            # Adam's first step is the rate times g/(|g| + 1e-8): almost the sign.
            step = run.options.rate * expected / (expected.abs() + 1e-8)
            torch.testing.assert_close(before[name] - parameter, step, rtol=1e-3, atol=1e-6)
        else:
            assert torch.equal(parameter, before[name]), name


def test_nonfinite_step_can_be_skipped_or_stop_the_run(tmp_path: Path) -> None:
    run = poisoned(tmp_path, "skip")
    before = step_with_nan(run)
    assert all(torch.equal(p, before[name]) for name, p in run.method.learner.named_parameters())
    assert run.state.nonfinite == 1
    with pytest.raises(FloatingPointError, match="not finite"):
        step_with_nan(poisoned(tmp_path, "stop"))


def test_log_holds_plain_means(tmp_path: Path) -> None:
    run = trainer(tmp_path)
    seen: list[float] = []
    run.options = Training(steps=14, validate_every=100, validation_tasks=5, log_every=7, clip_value=0.1, clip_norm=0.1)
    run.run(lambda state, metrics: seen.append(metrics["loss"]))
    with (tmp_path / "metrics.csv").open() as file:
        rows = {
            int(r["step"]): float(r["value"])
            for r in csv.DictReader(file)
            if (r["split"], r["name"]) == ("train", "loss")
        }
    assert rows == {7: pytest.approx(sum(seen[:7]) / 7), 14: pytest.approx(sum(seen[7:]) / 7)}


def test_best_is_restored_at_the_end(tmp_path: Path) -> None:
    run = trainer(tmp_path)
    scores = iter([0.3, 0.9, 0.5])
    snapshots: list[torch.Tensor] = []
    run.options = Training(steps=30, validate_every=10, log_every=10, clip_value=0.1, clip_norm=0.1)
    weight = run.method.learner.get_parameter("start.encoder.weight")

    def validate(_: object) -> float:
        snapshots.append(weight.detach().clone())
        return next(scores)

    run.validate = validate
    state = run.run()
    assert (state.best, state.best_step, state.stale) == (0.9, 20, 1)
    assert torch.equal(weight, snapshots[1])
    assert not torch.equal(weight, snapshots[2])


def test_foreign_and_broken_files_are_refused(tmp_path: Path) -> None:
    run = trainer(tmp_path / "run")
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"\x80\x04no pickle is ever loaded")
    with pytest.raises(ValueError, match="no checkpoint"):
        load_checkpoint(path, run.method.learner)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="no checkpoint"):
        load_checkpoint(path, run.method.learner)
    save_checkpoint(path, torch.nn.Linear(2, 2), run.state)
    with pytest.raises(ValueError, match="another learner"):
        load_checkpoint(path, run.method.learner)
    with safe_open(path, "pt") as file:
        assert "fewstep" in file.metadata()


@pytest.mark.parametrize("field", ["steps", "tasks", "validate_every"])
def test_senseless_options_are_refused(field: str) -> None:
    with pytest.raises(ValueError, match=field):
        Training(**({"steps": 1} | {field: 0}))
    assert OPTIONS.steps > 0


def test_cosine_decay_ends_at_zero() -> None:
    options = Training(steps=100, rate=2.0, decay="cosine")
    assert [options.rate_at(step) for step in (0, 50, 100)] == pytest.approx([2.0, 1.0, 0.0])
    assert Training(steps=100, rate=2.0).rate_at(99) == 2.0


@pytest.mark.parametrize("optimiser", ["adam", "sgd"])
def test_how_a_gradient_lies_in_memory_changes_nothing(optimiser: str, tmp_path: Path) -> None:
    """Compiled convolutions give gradients whose channels are last."""
    found = []
    for order in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(0)
        method = maml(Conv4(3, channels=(4, 4), downsample="stride"), rate=0.1)
        data = Dataset.from_labels(torch.randn(30, 1, 28, 28), np.repeat(np.arange(3), 10))
        source = EpisodeSampler(data, ways=3, shots=1, queries=2, tasks=2, seed=0)
        options = Training(steps=1, optimiser=optimiser, executor="loop", compile="off")
        run = Trainer(method, source, options, lambda _: 0.0, folder=tmp_path)
        found_by = run.differentiate

        def lain(*arguments, order=order, found_by=found_by):
            step = found_by(*arguments)
            laid = [g.contiguous(memory_format=order) if g.dim() == 4 else g for g in step.gradients]
            return step._replace(gradients=laid)

        run.differentiate = lain
        run.step(*run.inputs(0))
        found.append([parameter.detach() for parameter in run.parameters])
    torch.testing.assert_close(*found, rtol=0, atol=0)


def reptile_trainer(folder: Path) -> Trainer:
    """Outer gradient descent on a line, and inner moments that live on from task to task."""
    torch.manual_seed(0)
    method = reptile(mlp((1, 6, 1)), rate=0.05, steps=3, batch=4, carried=True, loss=regression())
    options = Training(
        steps=6,
        tasks=2,
        optimiser="sgd",
        rate=0.5,
        decay="linear",
        executor="loop",
        validate_every=2,
        validation_tasks=2,
        checkpoint_every=1,
    )
    source = Sinusoids(shots=6, queries=5, tasks=2, seed=0)
    score = lambda m: evaluate(m, source, 2).interval().mean  # noqa: E731
    return Trainer(method, source, options, score, folder=folder, higher_is_better=False)


def test_reptile_resumes_with_the_moments_that_its_tasks_carry(tmp_path: Path) -> None:
    whole = reptile_trainer(tmp_path / "whole")
    assert whole.options.rate_at(3) == pytest.approx(0.25)
    for _ in range(6):
        whole.advance()
    first = reptile_trainer(tmp_path / "parts")
    for _ in range(3):
        first.advance()
    second = reptile_trainer(tmp_path / "parts")
    assert second.state.step == 3
    for _ in range(3):
        second.advance()
    expected = whole.method.learner.state_dict()
    assert expected["stages.0.rule.steps"] == 6 * 2 * 3, "validation does not count"
    found = second.method.learner.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_an_outer_step_of_rate_one_goes_where_the_tasks_ended(tmp_path: Path) -> None:
    torch.manual_seed(0)
    method = reptile(mlp((1, 6, 1)), rate=0.05, steps=3, rule="sgd", loss=regression())
    source = Sinusoids(shots=6, queries=5, tasks=2, seed=0)
    ended = method.adapt(source.batch(0).support).value
    options = Training(steps=4, tasks=2, optimiser="sgd", rate=1.0)
    run = Trainer(method, source, options, lambda m: 0.0, folder=tmp_path, higher_is_better=False)
    run.step(*run.inputs(0))
    for name, parameter in method.learner.network.named_parameters():
        torch.testing.assert_close(parameter.detach(), ended[name].mean(0))
