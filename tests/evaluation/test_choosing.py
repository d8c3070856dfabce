"""What validation tasks choose after training, and datasets that are embedded once."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from fewstep.algorithms import maml, protonet, residual_prototypes
from fewstep.core import Alternatives, Learner, Method, Prototypes
from fewstep.data import Dataset, EpisodeSampler
from fewstep.evaluation import Evaluation, evaluate
from fewstep.evaluation import choosing as choosing_module
from fewstep.evaluation import scoring as scoring_module
from fewstep.evaluation.choosing import choose
from fewstep.evaluation.embedded import once_embedded
from fewstep.networks import Generated, mlp


def source(queries: int | None = None, noise: float = 0.8) -> EpisodeSampler:
    torch.manual_seed(0)
    rows = torch.randn(8, 1, 6) + noise * torch.randn(8, 20, 6)
    data = Dataset.from_sorted(rows.flatten(0, 1), np.arange(0, 161, 20))
    return EpisodeSampler(data, ways=3, shots=1, queries=queries, tasks=25, seed=0)


def harmful() -> Method:
    """Residual prototypes whose residual throws away all but one direction."""
    method = residual_prototypes(torch.zeros(6), hidden=4)
    with torch.no_grad():
        matrix = method.learner.get_parameter("embedding.2.linear.weight")
        matrix.copy_(5 * torch.outer(torch.ones(6), torch.ones(6)) - torch.eye(6))
    return method


def test_what_does_harm_is_left_out_and_stays_so() -> None:
    method = harmful()
    strength, _, _ = decisions = choose(method, source(), 50)
    assert strength.chosen == "0"
    assert strength.scores.mean(1).argmax() == 0
    assert method.learner.state_dict()["embedding.2.strength"] == 0
    found = evaluate(method, source(), 50, baselines=False).scores["adapted"]
    last = decisions[-1]
    np.testing.assert_allclose(found, last.scores[last.labels.index(last.chosen)])


def test_what_helps_is_taken() -> None:
    """Noise in half of the features; the residual takes them out."""
    given = source()
    loud = torch.cat([given.dataset.gather(np.arange(160)), 3 * torch.randn(160, 6)], 1)
    given = replace(given, dataset=Dataset.from_sorted(loud, given.dataset.offsets))
    method = residual_prototypes(torch.zeros(12), hidden=4)
    with torch.no_grad():
        method.learner.get_parameter("embedding.2.linear.weight").copy_(-torch.diag(torch.arange(12) >= 6).float())
    strength = choose(method, given, 100)[0]
    assert strength.chosen == "1"
    assert "over 0" in str(strength)
    stated = strength.to_dict()
    assert stated["gains"]["1"]["mean"] > 0.1
    assert stated["tasks"] == 100


def test_in_doubt_the_first_is_kept_and_what_was_in_place_changes_nothing() -> None:
    method = residual_prototypes(torch.zeros(6), hidden=4)  # all strengths of a residual of zero are alike
    first = [decision.chosen for decision in choose(method, source(), 20)]
    assert first[0] == "0"
    method.alternatives[0].take(method.learner, "1")
    method.alternatives[1].take(method.learner, "ridge 10")
    assert [decision.chosen for decision in choose(method, source(), 20)] == first


@pytest.mark.parametrize(("gain", "chosen"), [(0.1, "0"), (0.6, "0.05")])
def test_a_gain_below_a_standard_error_is_doubt(gain: float, chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.array([1.0, -1.0, 1.0, -1.0])  # its mean has a standard error of 0.58
    scores = iter([np.zeros(4), gain + noise])
    found = lambda *_, **__: Evaluation({"adapted": next(scores)}, "accuracy", True, False)  # noqa: E731
    monkeypatch.setattr(choosing_module, "evaluate", found)
    method = residual_prototypes(torch.zeros(6), hidden=4)
    strength = method.alternatives[0]
    two = Alternatives("strength", {label: strength.options[label] for label in ("0", "0.05")})
    assert choose(replace(method, alternatives=[two]), source(), 4)[0].chosen == chosen


def test_a_score_that_is_not_a_number_is_never_chosen() -> None:
    method = residual_prototypes(torch.zeros(6), hidden=4, steps=0)
    broken = Alternatives("scale", {"broken": {"start.shares": (float("inf"), 0.0)}, "whole": {"start.shares": (1, 0)}})
    decision = choose(replace(method, alternatives=[broken]), source(), 20)[0]
    assert decision.chosen == "whole"


class Counted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.rows = nn.Linear(6, 5), 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.rows += x.shape[0]
        return self.inner(x).relu()


def headed(embedding: nn.Module) -> Method:
    return Method(Learner(Generated(), Prototypes(()), [], embedding=embedding), protonet(Generated()).meta_gradient)


@pytest.mark.parametrize("queries", [None, 5])
def test_a_dataset_is_embedded_once_to_the_same_scores(queries: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    method, given = headed(mlp((6, 8, None))[:-1].eval()), source(queries)
    bare, embedded = once_embedded(method, given, 50)
    assert bare.learner.embedding is None
    assert isinstance(embedded, EpisodeSampler)
    assert embedded.dataset.feature_shape == (8,)
    fast = evaluate(method, given, 50, baselines=False).scores["adapted"]
    monkeypatch.setattr(scoring_module, "once_embedded", lambda method, source, tasks: (method, source))
    slow = evaluate(method, given, 50, baselines=False).scores["adapted"]
    np.testing.assert_allclose(fast, slow, atol=1e-9)


def test_it_is_not_where_rows_see_each_other_where_it_costs_more_or_where_the_network_adapts() -> None:
    given = source()
    normalising = headed(nn.Sequential(*mlp((6, 8, None), norm=True)[:-1]))
    assert once_embedded(normalising, given, 50)[0] is normalising
    plain = headed(mlp((6, 8, None))[:-1])
    assert once_embedded(plain, given, 2)[0] is plain, "two tasks have fewer rows than the dataset"
    unknown = headed(Counted())
    assert once_embedded(unknown, given, 50)[0] is unknown, "nothing is known of a user's own module"
    adapted = maml(mlp((6, 8, 3)), rate=0.1)
    assert once_embedded(adapted, given, 50)[0] is adapted
