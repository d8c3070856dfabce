"""Running means of meta-parameters and decoupled decay, against a loop by hand and torch's AdamW."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from fewstep.algorithms import maml
from fewstep.core import Decay, Method, regression
from fewstep.data import Sinusoids
from fewstep.networks import mlp
from fewstep.training import Trainer, Training

SOURCE = Sinusoids(tasks=4, shots=5, queries=5, seed=0)


def method() -> Method:
    torch.manual_seed(0)
    return maml(mlp((1, 8, 1)), rate=0.01, loss=regression())


def trainer(of: Method, folder: Path, **options: object) -> Trainer:
    settings = Training(steps=6, tasks=4, rate=0.01, validate_every=3, decay="linear", **options)  # type: ignore[arg-type]
    return Trainer(of, SOURCE, settings, lambda _: 0.0, folder=folder, higher_is_better=False)


def test_the_decay_is_that_of_adamw(tmp_path: Path) -> None:
    ours, theirs = method(), method()
    names = [name for name, _ in ours.learner.named_parameters()]
    run = trainer(replace(ours, decays=[Decay(3.0, names)]), tmp_path)
    optimiser = torch.optim.AdamW(theirs.learner.parameters(), weight_decay=3.0, lr=0.01)
    for step in range(5):
        run.advance()
        optimiser.param_groups[0]["lr"] = 0.01 * (1 - step / 6)
        optimiser.zero_grad()
        theirs.objective(SOURCE.batch(step), None).objective.backward()
        optimiser.step()
    for (name, a), b in zip(ours.learner.named_parameters(), theirs.learner.parameters(), strict=True):
        torch.testing.assert_close(a, b, msg=name)


def test_parameters_decay_towards_what_is_asked_for() -> None:
    layer = nn.Linear(3, 3, bias=False)
    begun, parameters = layer.weight.detach().clone(), dict(layer.named_parameters())
    for towards, target in (("zero", torch.zeros(3, 3)), ("identity", torch.eye(3)), ("initial", begun)):
        decay = Decay(2.0, ["weight"], towards)  # type: ignore[arg-type]
        with torch.no_grad():
            layer.weight.copy_(begun)
            targets = decay.targets(layer)
            layer.weight.add_(1.0)
        decay.pull(parameters, targets, rate=0.25)
        torch.testing.assert_close(layer.weight.detach(), (begun + 1 + target) / 2)
        decay.pull(parameters, targets, rate=10.0)
        torch.testing.assert_close(layer.weight.detach(), target)
    with pytest.raises(ValueError, match="must be finite and not negative"):
        Decay(-1.0, ["weight"])
    with pytest.raises(ValueError, match="only matrices"):
        Decay(1.0, ["bias"], "identity").targets(nn.Linear(2, 2))


def test_what_cannot_decay_is_named() -> None:
    given = method()
    with pytest.raises(ValueError, match="trains no parameter of that name"):
        replace(given, decays=[Decay(1.0, ["elsewhere"])])
    with pytest.raises(ValueError, match=r"network\.0\.weight is to decay, but 2 decays draw at it"):
        replace(given, decays=[Decay(1.0, ["network.0.weight"]), Decay(2.0, ["network.0.weight"])])
    given.learner.get_parameter("network.0.weight").requires_grad_(False)
    with pytest.raises(ValueError, match="trains no parameter of that name"):
        replace(given, decays=[Decay(1.0, ["network.0.weight"])])


def test_the_running_mean_is_validated_and_kept_and_the_training_goes_on_without_it(tmp_path: Path) -> None:
    plain, averaged, seen = method(), method(), []
    run = trainer(averaged, tmp_path / "averaged", average=0.3)
    run.validate = lambda m: seen.append([p.detach().clone() for p in m.learner.parameters()]) or float(len(seen))  # type: ignore[func-returns-value]
    beside = trainer(plain, tmp_path / "plain")
    means = [p.detach().clone() for p in plain.learner.parameters()]
    for step in range(6):
        beside.advance()
        weight = min(0.3, (1 + step) / (10 + step))
        means = [weight * m + (1 - weight) * p.detach() for m, p in zip(means, plain.learner.parameters(), strict=True)]
        run.advance()
        if step == 2:
            first = means
    for found, expected in ((seen[0], first), (seen[1], means)):
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b)
    for a, b in zip(averaged.learner.parameters(), plain.learner.parameters(), strict=True):
        assert torch.equal(a, b), "the mean has changed what is trained"
    best = load_file(tmp_path / "averaged" / "best.safetensors")
    for (name, _), mean in zip(averaged.learner.named_parameters(), first, strict=True):
        torch.testing.assert_close(best[f"learner/{name}"], mean)  # of a squared error the first was better
    with pytest.raises(ValueError, match=r"in \[0, 1\), got 1"):
        Training(steps=1, average=1.0)
