"""How long a practitioner waits: a fit to a few rows and a prediction, beside scikit-learn's logistic regression."""

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from benchmarks.measure import Case, Contender, Work
from fewstep import FewShotClassifier, leo, residual_prototypes
from fewstep.estimators.model import TrainedModel

WAYS, FEATURES, QUERIES = 5, 640, 100


def latency(shots: int, rounds: int = 100) -> Case:
    """Rows of length 1, as features of a recipe are; LEO has its paper's five and five steps."""
    source = np.random.default_rng(0)
    y = np.repeat(np.arange(WAYS), shots)
    rows = source.normal(size=(WAYS, FEATURES))[np.r_[y, np.arange(QUERIES) % WAYS]]
    rows = rows + 2 * source.normal(size=rows.shape)
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    x, queries = rows[: len(y)], rows[len(y) :]

    def work(estimator: LogisticRegression | FewShotClassifier) -> Work:
        def fit_and_predict() -> None:
            estimator.fit(x, y).predict(queries)

        return fit_and_predict

    torch.manual_seed(0)
    contenders = [
        Contender("logistic regression", lambda: work(LogisticRegression())),
        Contender("class means", lambda: work(FewShotClassifier())),
        Contender("LEO", lambda: work(FewShotClassifier(TrainedModel(leo(FEATURES))))),
        Contender(
            "residual prototypes", lambda: work(FewShotClassifier(TrainedModel(residual_prototypes(FEATURES, steps=0))))
        ),
    ]
    what = f"fit and predict, {WAYS}-way {shots}-shot, {FEATURES}-d, {QUERIES} queries, a warm process"
    return Case(f"estimators-{shots}shot", what, contenders, rounds=rounds, memory=False)
