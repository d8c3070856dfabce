from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.exceptions import NotFittedError
from torch import nn

from fewstep.algorithms import leo, maml
from fewstep.commands.main import main
from fewstep.core import Batch, Descend, Differentiate, Method, generator
from fewstep.data import Dataset, EpisodeSampler
from fewstep.estimators.classifier import FewShotClassifier
from fewstep.estimators.files import classify
from fewstep.estimators.model import TrainedModel
from fewstep.evaluation import evaluate
from fewstep.evaluation.baselines import all_baselines
from fewstep.networks import Conv4, mlp

NAMES = ["gull", "auk", "tern"]


def clusters(rows: Sequence[int], features: int = 8, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.str_]]:
    """Far clusters with unequal numbers of rows, shuffled so that the last name in the alphabet comes first."""
    source = np.random.default_rng(seed)
    centres = 4 * np.random.default_rng(7).normal(size=(len(rows), features))
    index = source.permutation(np.repeat(np.arange(len(rows)), rows))
    index = np.concatenate([[len(rows) - 1], np.delete(index, np.flatnonzero(index == len(rows) - 1)[0])])
    return centres[index] + 0.3 * source.normal(size=(len(index), features)), np.array(NAMES)[index]


def linear_maml() -> Method:
    """Softmax regression from zero: a strict test of labels, for nothing is learned but what ``fit`` shows it."""
    method = maml(nn.Linear(8, 3), rate=0.1, steps=20)
    for parameter in method.learner.parameters():
        nn.init.zeros_(parameter)
    return method


def adapted_leo() -> Method:
    """Untrained, with larger fine-tuning rates than its papers', so that adaptation alone separates the clusters."""
    method = leo(8, normalise=False, latents=4, finetuning_rate=0.05, finetuning_steps=20, latent_steps=0)
    return method


@pytest.mark.parametrize("build", [linear_maml, adapted_leo])
def test_names_and_unequal_shots(build) -> None:
    x, y = clusters([1, 4, 2])
    xq, yq = clusters([20, 20, 20], seed=1)
    model = FewShotClassifier(build()).fit(x, list(y))
    assert model.classes_.tolist() == sorted(NAMES)
    assert model.score(xq, yq) == 1
    probabilities = model.predict_proba(xq)
    assert probabilities.shape == (60, 3)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    np.testing.assert_array_equal(model.classes_[probabilities.argmax(1)], model.predict(xq))


@pytest.mark.parametrize("build", [linear_maml, adapted_leo])
def test_renaming_classes_renames_predictions(build) -> None:
    x, y = clusters([1, 4, 2])
    xq, _ = clusters([5, 5, 5], seed=1)
    method = build()
    number = {"tern": -1, "auk": 30, "gull": 7}  # sorted in another order than the names
    named = FewShotClassifier(method).fit(x, y)
    numbered = FewShotClassifier(method).fit(torch.from_numpy(x), torch.tensor([number[name] for name in y]))
    assert numbered.predict(xq).tolist() == [number[name] for name in named.predict(xq)]
    columns = [named.classes_.tolist().index(n) for n in sorted(number, key=number.__getitem__)]
    np.testing.assert_allclose(numbered.predict_proba(xq), named.predict_proba(xq)[:, columns], atol=1e-5)


def test_fitting_changes_no_meta_parameter_and_begins_anew() -> None:
    method = adapted_leo()
    before = {name: p.clone() for name, p in method.learner.named_parameters()}
    x, y = clusters([2, 2, 2])
    model = FewShotClassifier(method)
    first = model.fit(x, y).predict_proba(x)
    model.fit(x[::-1].copy(), y)
    np.testing.assert_array_equal(model.fit(x, y).predict_proba(x), first)
    assert all(torch.equal(p, before[name]) for name, p in method.learner.named_parameters())
    assert method.learner.training
    assert [s.steps for s in method.learner.stages if isinstance(s, Descend)] == [20]


def test_extractor_takes_images_and_features_pass_by() -> None:
    x, y = clusters([2, 3, 2])
    model = FewShotClassifier(TrainedModel(adapted_leo(), extractor=lambda images: images.flatten(1)))
    images = x.reshape(-1, 2, 2, 2)
    np.testing.assert_array_equal(model.fit(images, y).predict_proba(images), model.fit(x, y).predict_proba(x))


def test_images_go_to_the_network() -> None:
    model = FewShotClassifier(maml(Conv4(3), rate=0.01))
    images = np.random.default_rng(0).normal(size=(7, 1, 28, 28))
    probabilities = model.fit(images, [0, 1, 2, 2, 1, 0, 0]).predict_proba(images)
    # By the support's statistics, a prediction does not depend on what else is asked.
    np.testing.assert_allclose(model.predict_proba(images[:1]), probabilities[:1], atol=1e-5)
    model.statistics = "query"
    assert np.abs(model.predict_proba(images[:1]) - probabilities[:1]).max() > 1e-3
    with pytest.raises(ValueError, match="scale them as in training"):
        model.fit(images.astype(np.uint8), [0, 1, 2, 2, 1, 0, 0])


@pytest.mark.filterwarnings("ignore:.*depend on the rows that are asked with it")
def test_queries_are_normalised_as_in_an_evaluation() -> None:
    torch.manual_seed(0)
    network = Conv4(3, channels=(4, 5), scale=True).double()
    method = maml(network, rate=0.5, steps=2)
    images = np.random.default_rng(0).normal(size=(9, 1, 8, 8))
    x, query = torch.from_numpy(images[:5]), torch.from_numpy(images[5:])
    support = Batch(x[None], torch.eye(3).double()[[0, 0, 1, 2, 2]][None], torch.ones(1, 5).double())
    asked = Batch(query[None], torch.zeros(1, 4, 3).double(), torch.ones(1, 4).double())
    seen = []
    for option in ("query", "support", "joined", "running"):
        points = method.adapt(support, statistics=option)
        among = support if option in ("support", "joined") else None
        logits = method.predict(points, asked, among, statistics=option)[0]
        model = FewShotClassifier(method, statistics=option).fit(images[:5], [0, 0, 1, 2, 2])
        np.testing.assert_allclose(model.predict_proba(images[5:]), logits.softmax(-1), atol=1e-12)
        seen.append(model.predict_proba(images[5:]))
    for i, one in enumerate(seen):
        assert all(np.abs(one - other).max() > 1e-4 for other in seen[:i])


def test_normalise_makes_lengths_irrelevant() -> None:
    x, y = clusters([2, 3, 2])
    lengths = np.linspace(0.1, 10, len(x))[:, None]
    model = FewShotClassifier(TrainedModel(adapted_leo(), normalise=True))
    np.testing.assert_allclose(
        model.fit(x, y).predict_proba(x), model.fit(lengths * x, y).predict_proba(3 * x), atol=1e-5
    )


def test_any_number_of_classes_for_leo_but_not_for_a_fixed_head() -> None:
    x, y = clusters([3, 3])
    assert FewShotClassifier(adapted_leo()).fit(x, y).predict_proba(x).shape == (6, 2)
    for method in (linear_maml(), maml(nn.Linear(8, 1), rate=0.1)):
        with pytest.raises(ValueError, match=r"2 classes were given, but the network has \d outputs"):
            FewShotClassifier(method).fit(x, y)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (None, "y is None"),
        (["a", "b"], r"each of the 3 rows, got the shape \(2,\)"),
        (["a", "a", "a"], "all 3 rows are of one class, 'a'"),
        (["a", None, "b"], "1 of 3 labels are missing, the first in row 1"),
        (["a", "b", ""], "1 of 3 labels are missing, the first in row 2"),
        (np.array([0, 1, np.nan]), "1 of 3 labels are missing, the first in row 2"),
        ([0, "1", 1], "1 of 3 labels are text"),
        (np.eye(3), "one label for each"),
    ],
)
def test_labels_that_are_none(labels: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FewShotClassifier(adapted_leo()).fit(np.ones((3, 8)), labels)


@pytest.mark.parametrize(
    ("method", "x", "message"),
    [
        (adapted_leo, np.ones((2, 5)), "X has 5 features, but the model takes 8"),
        (lambda: maml(mlp((8, 5, 2)), rate=0.1), np.ones((2, 5)), "X has 5 features, but the model takes 8"),
        (lambda: maml(Conv4(2), rate=0.1), np.ones((2, 5)), "does not take rows of 5 features"),
        (lambda: maml(Conv4(2), rate=0.1), np.ones((2, 3, 28, 28)), "does not take rows of the shape 3×28×28"),
        (adapted_leo, np.array([[1.0] * 8, [np.inf] * 8]), "1 of 2 rows of X hold NaN or infinity, the first is row 1"),
        (adapted_leo, np.ones(8), "Expected 2D array, got 1D array"),
    ],
)
def test_inputs_that_do_not_fit(method, x: NDArray[np.float64], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FewShotClassifier(method()).fit(x, [0, 1] if x.ndim > 1 else [0] * 8)


def test_predicting_before_fitting_and_on_other_rows() -> None:
    model = FewShotClassifier(adapted_leo())
    with pytest.raises(NotFittedError, match="not fitted yet"):
        model.predict(np.ones((1, 8)))
    x, y = clusters([2, 2, 2])
    with pytest.raises(ValueError, match="X has 7 features, but FewShotClassifier is expecting 8 features"):
        model.fit(x, y).predict(x[:, :7])


def test_views_and_other_byte_orders_are_the_same_rows() -> None:
    x, y = np.random.default_rng(0).normal(size=(6, 8)), np.array([0, 1] * 3)
    model = FewShotClassifier(adapted_leo())
    wanted = model.fit(x, y).predict_proba(x)
    for other in (x[::-1].copy()[::-1], x.astype(">f8"), np.asfortranarray(x)):
        np.testing.assert_allclose(model.fit(other, y).predict_proba(other), wanted, rtol=1e-6)


def test_files_are_classified_by_the_names_that_training_takes(tmp_path: Path) -> None:
    x, y = np.random.default_rng(0).normal(size=(6, 8)), np.array(["auk", "tern"] * 3)
    np.savez(tmp_path / "support.npz", X=x, Y=y)
    np.savez(tmp_path / "query.npz", all_feats=x)
    found = classify(FewShotClassifier(adapted_leo()), tmp_path / "support.npz", tmp_path / "query.npz")
    assert len(found[1]) == 6
    np.savez(tmp_path / "none.npz", x=x[:0])
    with pytest.raises(ValueError, match=r"none\.npz holds 0 rows, .*: give at least one"):
        classify(FewShotClassifier(adapted_leo()), tmp_path / "support.npz", tmp_path / "none.npz")
    with pytest.raises(ValueError, match=r"rows\.txt is neither a folder of images nor a file of features"):
        classify(FewShotClassifier(adapted_leo()), tmp_path / "rows.txt", tmp_path / "query.npz")


def test_a_run_and_its_file_predict_by_the_baselines_of_its_test(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As an evaluation scores them: on the features that reach the method, here of length 1, centred by the run's."""
    source = np.random.default_rng(0)
    base = source.normal(size=(18, 10, 8)).astype(np.float32) + 1
    np.savez(tmp_path / "base.npz", features=base, split=np.repeat([0, 1, 2], 6).astype(np.uint8))
    run = ["train", "leo-features-1shot", "--data.path", str(tmp_path / "base.npz"), "--data.queries", "2"]
    short = ["--training.steps", "1", "--training.validation-tasks", "2", "--testing.tasks", "2"]
    main([*run, *short, "--training.tasks", "2", "--training.compile", "off", "--out", str(tmp_path / "run")])
    (tmp_path / "base.npz").unlink()
    main(["export", str(tmp_path / "run"), str(tmp_path / "model.fewstep.safetensors")])
    rows, labels = 5 * source.normal(size=(13, 8)), np.array(list("bcabca"))
    np.savez(tmp_path / "few.npz", x=rows[:6], y=labels)
    np.savez(tmp_path / "new.npz", x=rows[6:])
    unit = torch.nn.functional.normalize
    x, one_hot = unit(torch.from_numpy(rows), dim=1)[None], torch.from_numpy(labels[:, None] == np.array(list("abc")))
    support = Batch(x[:, :6], one_hot.double()[None], torch.ones(1, 6).double())
    query = Batch(x[:, 6:], support.y[:, :1], torch.ones(1, 7).double())
    for name, of in all_baselines(unit(torch.from_numpy(base[:6]).double(), dim=2).mean((0, 1))).items():
        for model in ("run", "model.fewstep.safetensors"):
            capsys.readouterr()
            asked = ["--support", str(tmp_path / "few.npz"), "--query", str(tmp_path / "new.npz"), "--baseline", name]
            main(["predict", str(tmp_path / model), *asked])
            found = np.array([line.split(",")[2:] for line in capsys.readouterr().out.splitlines()[1:]], float)
            np.testing.assert_allclose(found, of(support, query)[0].softmax(1), atol=1e-5, err_msg=f"{name} of {model}")
    old = Path(__file__).parents[1] / "fixtures" / "runs-0.1.0" / "leo-features-1shot"
    with pytest.raises(SystemExit, match="2"):
        main(["predict", str(old), *asked[:-1], "nearest class mean, centred"])
    assert "keeps no mean of its meta-training classes" in " ".join(capsys.readouterr().err.split())


class Sentence(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.table, self.layer, self.last = nn.Embedding(24, 8), layer, nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.layer(self.table(x))
        return self.last((h[0] if isinstance(h, tuple) else h).mean(1))


@pytest.mark.parametrize(
    "layer",
    [lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), lambda: nn.GRU(8, 8, batch_first=True)],
    ids=["transformer", "GRU"],
)
def test_tokens_go_from_a_data_set_through_meta_training_to_predictions(layer: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    # Words of a class are of a range of its own.
    words = np.concatenate([np.random.default_rng(c).integers(4 * c, 4 * c + 4, (12, 5)) for c in range(6)])
    dataset = Dataset.from_sorted(words, range(0, 73, 12), tokens=True)
    source = EpisodeSampler(dataset, ways=3, shots=2, queries=3, tasks=4, seed=0, dtype=torch.float64)
    method = maml(Sentence(layer()).double(), rate=0.5, steps=5)
    differentiate, adam = Differentiate(method), torch.optim.Adam(method.learner.parameters(), 1e-2)
    for step in range(4):
        tasks = source.batch(step)
        assert (tasks.support.x.dtype, tasks.support.y.dtype) == (torch.int64, torch.float64)
        for parameter, gradient in zip(
            method.learner.trained(),
            differentiate(tasks, method.draws(tasks, generator(0, step, "noise"))).gradients,
            strict=True,
        ):
            parameter.grad = gradient
        adam.step()
    assert set(evaluate(method, source, 4).scores) == {"adapted", "unadapted"}, "indices have no means"
    few, new = words[[0, 1, 24, 25, 60, 61]], torch.from_numpy(words[[2, 26, 62]]).short()
    classifier = FewShotClassifier(TrainedModel(method, tokens=True)).fit(few, list("aabbcc"))
    assert classifier.predict(new).tolist() == ["a", "b", "c"]
    with pytest.raises(ValueError, match=r"tokens are integers, but X is torch\.float64"):
        classifier.predict(new.double())
    with pytest.raises(ValueError, match="tokens=True where rows are indices"):
        FewShotClassifier(method).fit(few, list("aabbcc"))
