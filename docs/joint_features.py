"""Does LEO gain when the features that it was trained on are learned on, with it?

    fewstep train leo-omniglot --out RUN && python docs/joint_features.py RUN

goes on with a trained run for some more meta-steps: once with its features as they are, and once on images, with the
network of the features meta-learned too; tasks and noise are the same. Printed are accuracies on 1,000 test tasks and
differences, paired. docs/results.md has the figures.
"""

import argparse
import math
from pathlib import Path

import torch
from torch import Tensor, nn

from fewstep.core import Method, generator
from fewstep.data import Dataset, EpisodeSampler, omniglot
from fewstep.evaluation import Evaluation, evaluate, paired
from fewstep.experiments.run import Run
from fewstep.networks import UnitLength
from fewstep.training.pretraining import FeatureExtractor, embed

WAYS, TASKS, SEED = 20, 4, 100


class Standardise(nn.Module):
    """Images as the network saw them in pre-training."""

    def __init__(self, mean: Tensor, deviation: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean[:, None, None])
        self.register_buffer("deviation", deviation[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        """Each channel by its mean and deviation."""
        return (x - self.mean) / self.deviation


class Pool(nn.Module):
    """The mean over space."""

    def forward(self, x: Tensor) -> Tensor:
        """``[rows, channels]``."""
        return x.mean((2, 3))


def learnable(extractor: FeatureExtractor) -> nn.Module:
    """The network of an extractor up to its layer, with each normalisation folded into its convolution."""
    network = extractor.network
    layers: list[nn.Module] = [Standardise(network.mean, network.deviation)]
    for name, block in network.backbone.blocks.named_children():
        before, norm = block.convolution, block.norm
        gain = norm.weight / (norm.running_var + norm.eps).sqrt()
        convolution = nn.Conv2d(before.in_channels, before.out_channels, 3, padding=1)
        convolution.weight.data = before.weight * gain[:, None, None, None]
        convolution.bias.data = norm.bias - norm.running_mean * gain
        layers += [convolution, nn.ReLU(), *([nn.MaxPool2d(2)] if hasattr(block, "pool") else [])]
        if f"blocks.{name}" == extractor.layer:
            break
    return nn.Sequential(*layers, Pool(), UnitLength())


def go_on(method: Method, train: Dataset, steps: int, rate: float) -> None:
    """Meta-train by Adam, its rate falling along a cosine; a step that is not finite is left out."""
    parameters = list(method.learner.parameters())
    adam = torch.optim.Adam(parameters, lr=rate)
    tasks = EpisodeSampler(train, ways=WAYS, shots=1, queries=5, tasks=TASKS, seed=SEED)
    seen: list[float] = []
    for step in range(steps):
        adam.param_groups[0]["lr"] = rate * 0.5 * (1 + math.cos(math.pi * step / steps))
        batch = tasks.batch(step)
        estimate = method.objective(batch, method.noise(batch, generator(SEED, step, "noise")))
        adam.zero_grad()
        estimate.objective.backward()
        if all(p.grad.isfinite().all() for p in parameters if p.grad is not None):
            torch.nn.utils.clip_grad_value_(parameters, 0.1)
            adam.step()
        seen.append(estimate.metrics["accuracy"].mean().item())
        if step % 100 == 99:
            print(f"{step + 1} meta-steps, training accuracy {sum(seen[-100:]) / 100:.4f}", flush=True)


def test(method: Method, novel: Dataset) -> Evaluation:
    """On 1,000 tasks of all remaining drawings."""
    tasks = EpisodeSampler(novel, ways=WAYS, shots=1, queries=None, tasks=50, seed=0, stream="episodes/test")
    return evaluate(method, tasks, 1000, baselines=False)


def main() -> None:
    """Train twice, test three times."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("run", type=Path, help="a trained run of leo-omniglot")
    arguments.add_argument("--steps", type=int, default=1000)
    arguments.add_argument("--rate", type=float, default=5e-4)
    given = arguments.parse_args()
    images = {split: omniglot(split, rotations=split == "train") for split in ("train", "test")}

    def begun() -> tuple[Method, FeatureExtractor]:
        run = Run.open(given.run)
        assert run.problem.extractor is not None, "a run on features of images"
        return run.method, run.problem.extractor

    method, extractor = begun()
    features = {split: embed(extractor, examples) for split, examples in images.items()}
    found = {"as trained": test(method, features["test"])}
    go_on(method, features["train"], given.steps, given.rate)
    found["features fixed"] = test(method, features["test"])
    method, extractor = begun()
    joint = method.on(learnable(extractor))
    go_on(joint, images["train"], given.steps, given.rate)
    found["features learned"] = test(joint, images["test"])
    for name, result in found.items():
        print(f"{name}: {result.interval().text(percent=True)}")
    for name in ("as trained", "features fixed"):
        difference = paired(found["features learned"].scores["adapted"], found[name].scores["adapted"])
        print(f"features learned − {name}: {difference.text(percent=True, sign=True)}")


if __name__ == "__main__":
    main()
