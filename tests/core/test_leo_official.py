"""The official formulation against recordings of the LEO authors' TensorFlow code, in float64.

Reads every ``*.npz`` of the folder named by ``FEWSTEP_ORACLES`` (default ``../shared/oracles``), whatever its ways,
shots, widths, steps and weights. The recorded noise enters the way all noise does.
"""

import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pages import ROOT
from torch.utils._pytree import tree_map

from fewstep.algorithms import leo
from fewstep.core import Batch, Formulation, Method, Point, Task, exact

FOLDER = Path(os.environ.get("FEWSTEP_ORACLES", ROOT.parent / "shared" / "oracles"))
FILES = sorted(FOLDER.glob("*.npz"))
pytestmark = pytest.mark.skipif(not FILES, reason=f"no recordings in {FOLDER}; set FEWSTEP_ORACLES")

NAMES = {
    "leo/encoder/linear/w:0": "start.encoder.weight",
    "leo/decoder/linear/w:0": "start.decoder.weight",
    **{f"leo/relation_network/mlp/linear_{i}/w:0": f"start.relation.layers.{i}.weight" for i in range(3)},
    "leo/leo_inner/lr:0": "stages.0.rule.rates.code",
    "leo/finetuning/lr:0": "stages.2.rule.rates.weight",
}


class Oracle:
    """One recording, and the method, task and noise that must reproduce it."""

    def __init__(self, path: Path, **switches: Any) -> None:
        self.data = dict(np.load(path))
        cfg = {k.removeprefix("cfg/"): v.item() for k, v in self.data.items() if k.startswith("cfg/")}
        self.cfg, (self.ways, self.shots, features) = cfg, self.data["support_x"].shape
        assert cfg["dropout_rate"] == 0
        arguments: dict[str, Any] = {
            "latents": cfg["num_latents"],
            "hidden": self.data["var/leo/relation_network/mlp/linear_0/w:0"].shape[1],
            "latent_steps": cfg["inner_unroll_length"],
            "finetuning_steps": cfg["finetuning_unroll_length"],
            "dropout": 0.0,
            "kl_weight": cfg["kl_weight"],
            "encoder_penalty_weight": cfg["encoder_penalty_weight"],
            "l2_weight": cfg["l2_penalty_weight"],
            "orthogonality_weight": cfg["orthogonality_penalty_weight"],
        }
        self.method: Method = leo(features, normalise=False, latent_clip=None, **{**arguments, **switches})
        self.method.learner.double()
        parameters = dict(self.method.learner.named_parameters())
        assert parameters.keys() == set(NAMES.values())
        for source, name in NAMES.items():
            parameters[name].data = self.ours(self.data[f"var/{source}"])
        self.task = Task(self.batch("support_x"), self.batch("query_x"))
        self.noise = self.record() if any(k.startswith("eps/") for k in self.data) else None

    def ours(self, theirs: np.ndarray) -> torch.Tensor:
        """Weights are stored [in, out], rates [1, 1, width]."""
        return torch.from_numpy(theirs.squeeze((0, 1)) if theirs.ndim == 3 else theirs.T.copy())

    def rows(self, name: str) -> torch.Tensor:
        """[N, K, width] to class-major rows."""
        return torch.from_numpy(self.data[name]).flatten(0, 1)

    def batch(self, name: str) -> Batch:
        n, k, _ = self.data[name].shape
        y = torch.eye(n, dtype=torch.float64).repeat_interleave(k, 0)
        return Batch(self.rows(name), y, torch.ones(n * k, dtype=torch.float64))

    def record(self) -> Any:
        """The recorded draws in the shape of the learner's own sites: codes first, then one draw a decode."""
        draws = iter(sorted(k for k in self.data if k.startswith("eps/")))
        code = {"code": self.rows(next(draws))}
        decodes = [{"decode": {"weight": self.rows(key)}, "dropout": {}} for key in draws]
        assert len(decodes) == self.cfg["inner_unroll_length"] + 1
        return {
            "begin": {"start": code, "dropout": {}},
            "stages": [decodes[:-1], decodes[-1], [{"dropout": {}}] * self.cfg["finetuning_unroll_length"]],
            "shuffles": [None] * 3,
            "query": {"dropout": {}},
        }

    def class_weights(self, point: Point) -> torch.Tensor:
        return point.context.get("share", 1) * point.value["weight"]

    def differences(self) -> dict[str, tuple[float, float]]:
        """Every compared quantity's largest absolute difference, and its tolerance."""
        learner, training = self.method.learner, self.noise is not None
        found: dict[str, tuple[float, float]] = {}

        def compare(name: str, ours: torch.Tensor, theirs: Any, tolerance: float) -> None:
            theirs = torch.as_tensor(theirs, dtype=torch.float64).reshape(-1)
            same = ours.numel() == theirs.numel()
            found[name] = ((ours.reshape(-1) - theirs).abs().max().item() if same else float("inf"), tolerance)

        support, passed = self.task.support, list[Point]()
        end, penalties = learner.adapt(support, exact, self.noise, visit=passed.append)
        steps = learner.stages[0].steps
        begun, adapted, decoded = passed[0], passed[steps], passed[steps + 1]
        compare("initial_latents", begun.value["code"], self.data["out/initial_latents"], 1e-12)
        # A class's K weight vectors act through their mean alone, and that is what the library carries.
        compare("final_weights", self.class_weights(end), self.data["out/final_weights"].mean(1), 1e-12)
        compare("adapted_latents", adapted.value["code"], self.data["out/adapted_latents"], 1e-12)
        compare("decoded_weights", self.class_weights(decoded), self.data["out/decoded_weights"].mean(1), 1e-12)
        loss_rows = learner.loss.rows(learner.predict(decoded, support), support.y)
        compare("support_loss_after_latent", loss_rows, self.data["out/support_loss_after_latent"], 1e-9)

        weighted = {"kl": "kl_weight", "encoder_penalty": "encoder_penalty_weight"}
        for name, weight in weighted.items():
            ours = penalties[name] if training else torch.zeros((), dtype=torch.float64)
            tolerance = {"kl": 1e-7, "encoder_penalty": 1e-6}[name] * self.cfg[weight]
            compare(name, ours, self.cfg[weight] * self.data[f"out/{name}"], tolerance)
        prediction = learner.predict(end, self.task.query)
        # The key's name promises penalties, but the recorded numbers hold none: mean cross-entropy + penalties +
        # regularisers is what adds up to the recorded out/loss.
        rows = learner.loss.rows(prediction, self.task.query.y)
        tolerance = 1e-7 if training else 1e-9
        compare("query_loss", rows, self.data["out/query_loss_unreduced_with_penalties"], tolerance)

        one = partial(tree_map, lambda leaf: None if leaf is None else leaf.unsqueeze(0))
        estimate = self.method.objective(one(self.task), one(self.noise))
        compare("loss", estimate.objective, self.data["out/loss"], tolerance)
        compare("acc", estimate.metrics["accuracy"], self.data["out/acc"], 1e-7)
        self.method.learner.zero_grad()
        estimate.objective.backward()
        for source, name in NAMES.items():
            gradient = learner.get_parameter(name).grad
            compare(f"grad/{name}", gradient, self.ours(self.data[f"out/grad/{source}"]), tolerance)
        return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_recorded_quantity(path: Path) -> None:
    differences = Oracle(path).differences()
    wrong = {name: pair for name, pair in differences.items() if not pair[0] <= pair[1]}
    assert not wrong, f"{path.name}: (difference, tolerance) of {wrong}"


SWITCHES: dict[str, dict[str, Any]] = {
    "one code a class": {"formulation": Formulation(codes="class")},
    "deviation exp(u)": {"formulation": Formulation(deviation="exp")},
    "analytic KL": {"formulation": Formulation(kl="analytic")},
    "penalties summed": {"formulation": Formulation(reduction="sum")},
    "support loss averaged": {"support_reduction": "mean"},
    "L2 without the half": {"half_l2": False},
    "orthogonality summed": {"orthogonality_reduction": "sum"},
}


@pytest.mark.parametrize("switch", SWITCHES)
def test_every_switch_matters(switch: str) -> None:
    """Flipping any one switch away from the official formulation breaks at least one recording."""
    for path in FILES:
        try:
            differences = Oracle(path, **SWITCHES[switch]).differences()
        except RuntimeError:  # another shape of noise: one code a class
            return
        if any(not difference <= tolerance for difference, tolerance in differences.values()):
            return
    pytest.fail(f"{switch}: the recordings do not notice")
