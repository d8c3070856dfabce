"""Regression of functions: sinusoids, sines or lines, oscillations."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from fewstep import data
from fewstep.core.ranges import Count, PositiveOrZero, require_ranges
from fewstep.recipes.problems.problem import Problem, Split

if TYPE_CHECKING:
    from fewstep.evaluation.baselines import Baseline
    from fewstep.training.device import Place
    from fewstep.training.pretraining import FeatureExtractor


@dataclass(frozen=True)
class Regression(ABC):
    """Few-shot regression of functions that are drawn: what every family of functions has in common."""

    needs: ClassVar[str] = "nothing: functions are drawn"
    """What a user must have or fetch."""

    shots: Count = 5
    """K, support points."""
    queries: Count = 20
    """Query points in training."""
    fewest_shots: Count | None = None
    """Draw for each training task how many support points it has, from this to all of them. None: always all."""

    def __post_init__(self) -> None:
        require_ranges(self, "data.")

    def open(self, place: Place, report: Callable[[str], None], extractor: FeatureExtractor | None = None) -> Problem:
        """Sources of functions; training, validation and test draw from independent streams."""
        sampler, protocol, (inputs, outputs) = self._sampler(), self._protocol(), self._widths()
        if self.fewest_shots is not None:
            protocol |= {"training": f"{self.fewest_shots}- to {self.shots}-shot"}

        def source(
            split: Split, tasks: int, seed: int, shots: int | None = None, queries: int | None = None
        ) -> data.TaskSource:
            shots = self.shots if shots is None else shots
            functions = sampler(
                shots=shots,
                queries=self.queries if split == "train" else 100 if queries is None else queries,
                tasks=tasks,
                seed=seed,
                stream=f"{protocol['dataset']}/{split}",
                **asdict(place),
            )
            if self.fewest_shots is None or split != "train":
                return functions
            return data.FewerShots(functions, shots, self.fewest_shots, seed=seed)

        baselines, yardsticks = self._rivals()
        return Problem(
            source, (inputs,), outputs, protocol, regression=True, baselines=baselines, yardsticks=yardsticks
        )

    @abstractmethod
    def _sampler(self) -> Callable[..., data.TaskSource]:
        """Makes a source: what these tasks add to the arguments that all have."""

    @abstractmethod
    def _protocol(self) -> dict[str, Any]:
        """What a result must state."""

    def _widths(self) -> tuple[int, int]:
        """Numbers in an input and in a target."""
        return 1, 1

    def _rivals(self) -> tuple[dict[str, Baseline], dict[str, Baseline]]:
        """Baselines and yardsticks, see :class:`Problem`."""
        return {}, {}


@dataclass(frozen=True)
class SinusoidTasks(Regression):
    """Regression of sine curves (Finn et al. 2017, section 5.1)."""

    needs: ClassVar[str] = "nothing: curves are drawn"
    """What a user must have or fetch."""

    shots: Count = 10
    """K, support points in training."""
    queries: Count = 10
    """Query points in training."""
    frequency: tuple[PositiveOrZero, PositiveOrZero] = (1.0, 1.0)
    """Range of ω; MAML's curves all have ω = 1."""

    def _sampler(self) -> Callable[..., data.TaskSource]:
        return functools.partial(data.Sinusoids, frequency=self.frequency)

    def _protocol(self) -> dict[str, Any]:
        return {"dataset": "sinusoids", "amplitude": [0.1, 5.0], "phase": [0, "π"], "frequency": list(self.frequency)}


@dataclass(frozen=True)
class SineOrLineTasks(Regression):
    """Noisy sine curves and noisy lines (Rusu et al. 2019, appendix A.1)."""

    queries: Count = 20
    """Query points in training; the paper does not say how many it has."""
    noise: PositiveOrZero = 0.3
    """Standard deviation of the noise of all targets."""

    def _sampler(self) -> Callable[..., data.TaskSource]:
        return functools.partial(data.SineOrLine, noise=self.noise)

    def _protocol(self) -> dict[str, Any]:
        return {"dataset": "sine or line", "noise": self.noise}


@dataclass(frozen=True)
class OscillationTasks(Regression):
    """Damped oscillations to forecast from their first values: a sequence task, of no paper."""

    needs: ClassVar[str] = "nothing: oscillators are drawn"
    """What a user must have or fetch."""

    shots: Count = 5
    """K, support trajectories."""
    queries: Count = 15
    """Query trajectories in training."""
    noise: PositiveOrZero = 0.1
    """Standard deviation of the noise of all observations."""
    seen: Count = 5
    """Values of a trajectory that are given."""
    ahead: Count = 20
    """Values to forecast, which follow them."""

    def _sampler(self) -> Callable[..., data.TaskSource]:
        return functools.partial(data.Oscillations, noise=self.noise, seen=self.seen, ahead=self.ahead)

    def _protocol(self) -> dict[str, Any]:
        stated = {"dataset": "oscillations", "noise": self.noise, "seen": self.seen, "ahead": self.ahead}
        prior = {name: list(bounds) for name, bounds in asdict(data.OscillatorPrior()).items()}
        return stated | prior | {"interval": data.Oscillations.interval}

    def _widths(self) -> tuple[int, int]:
        return self.seen, self.ahead

    def _rivals(self) -> tuple[dict[str, Baseline], dict[str, Baseline]]:
        from fewstep.evaluation import autoregression, bayes_forecast
        from fewstep.evaluation.baselines import AUTOREGRESSION
        from fewstep.evaluation.exact.oscillations import EXACT_FORECAST

        best = functools.partial(
            bayes_forecast, prior=data.OscillatorPrior(), noise=self.noise, interval=data.Oscillations.interval
        )
        # Of a single value no trend is to be seen, and without noise the posterior is a point.
        quick: dict[str, Baseline] = {AUTOREGRESSION: autoregression} if self.seen > 1 else {}
        return quick, {EXACT_FORECAST: best} if self.noise > 0 else {}
