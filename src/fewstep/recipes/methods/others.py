"""Settings of methods that adapt in ways of their own: Reptile and prototypes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fewstep import core, networks
from fewstep.core.ranges import Count, CountOrZero, Positive
from fewstep.recipes.methods.network import Network, loss_of
from fewstep.recipes.methods.settings import Settings, before
from fewstep.recipes.problems.problem import Problem

if TYPE_CHECKING:
    from torch import Tensor

    from fewstep.data import Dataset


class Reptile(Settings, algorithm="reptile"):
    """Reptile (Nichol et al. 2018): move the initialisation to where adaptation went."""

    network: Network = before("rate")
    """The network; its initialisation is what is meta-learned."""
    test_steps: CountOrZero | None = before("rule", None)
    """Inner steps in validation and test. None: as in training."""
    test_batch: Count | None = before("rule", None)
    """Rows of an inner mini-batch in validation and test. None: as in training."""

    def build(self, problem: Problem) -> core.Method:
        """Reptile on the problem's inputs."""
        return self.compose(network=self.network.build(problem), loss=loss_of(problem, network=self.network))


class Protonet(Settings, algorithm="protonet"):
    """Prototypical networks (Snell et al. 2017): nearest class mean in a meta-learned embedding."""

    network: Network
    """The embedding."""

    def build(self, problem: Problem) -> core.Method:
        """ProtoNet on the problem's inputs."""
        return self.compose(network=self.network.build(problem, head=False), loss=loss_of(problem))


class R2d2(Settings, algorithm="r2d2"):
    """R2-D2 (Bertinetto et al. 2019): ridge regression in closed form, in a meta-learned embedding."""

    network: Network = before("penalty")
    """The embedding."""

    def build(self, problem: Problem) -> core.Method:
        """R2-D2 on the problem's inputs."""
        return self.compose(network=self.network.build(problem, head=False), loss=loss_of(problem))


class Ppa(Settings, algorithm="ppa"):
    """PPA (Qiao et al. 2018): weights of a classifier predicted from class means of fixed features."""

    def build(self, problem: Problem) -> core.Method:
        """PPA on the problem's features."""
        if len(problem.inputs) != 1:
            raise ValueError(f"ppa works on feature vectors; the data gives inputs of shape {list(problem.inputs)}.")
        return self.compose(features=problem.inputs[0], loss=loss_of(problem))


class GaussianPrior(Settings, algorithm="gaussian_prior", omit=("learned",)):
    """A Gaussian prior over softmax weights (Bauer et al. 2017), on fixed features; nothing is meta-learned."""

    rows: Count = before("covariance", 100)
    """Most rows of each class of meta-training that the softmax weights of these classes are fitted to."""
    penalty: Positive = before("covariance", 1e-4)
    """Of these weights: half their squares, times this, beside the mean cross-entropy."""

    def build(self, problem: Problem) -> core.Method:
        """The prior of the softmax weights of meta-training classes."""
        if len(problem.inputs) != 1 or problem.regression:
            shape = list(problem.inputs)
            raise ValueError(f"gaussian_prior works on feature vectors; the data gives inputs of shape {shape}.")
        if problem.examples is None:
            return self.compose(weights=problem.inputs[0])
        from fewstep.data import softmax_weights

        return self.compose(weights=softmax_weights(problem.examples(), self.rows, self.penalty).float())


class NeuralProcess(Settings, algorithm="neural_process"):
    """NP, and CNP without a latent code (Garnelo et al. 2018): a distribution predicted from an encoded support."""

    def build(self, problem: Problem) -> core.Method:
        """A neural process on the problem's numbers."""
        if len(problem.inputs) != 1:
            raise ValueError(f"neural_process reads rows of numbers; the data gives inputs of {list(problem.inputs)}.")
        loss = None if problem.regression else loss_of(problem)
        return self.compose(inputs=problem.inputs[0], outputs=problem.outputs, loss=loss)


class Dfsl(Settings, algorithm="dfsl"):
    """DFSL (Gidaris and Komodakis 2018): a cosine classifier from class means and weights of known classes."""

    base_classes: CountOrZero = before("scale", 256)
    """Most classes of meta-training that have weights, to which new ones attend. 0: none (generation by averaging)."""
    base_rows: Count = before("scale", 100)
    """Most rows of each of these classes that a cosine classifier is fitted to, whose weights they begin with."""

    def build(self, problem: Problem) -> core.Method:
        """DFSL on the problem's features."""
        if len(problem.inputs) != 1 or problem.regression:
            shape = list(problem.inputs)
            raise ValueError(f"dfsl works on feature vectors; the data gives inputs of shape {shape}.")
        if problem.examples is None or not self.base_classes:
            return self.compose(features=problem.inputs[0], known=self.base_classes, loss=loss_of(problem))
        from torch.nn.functional import pad

        from fewstep.data import cosine_weights

        examples = problem.examples()
        named = examples.subset(range(min(examples.classes, self.base_classes)))
        weights = cosine_weights(named, self.base_rows, self.scale)
        weights = pad(weights.float(), (0, 0, 0, self.base_classes - named.classes))  # zeros: there are no more
        return self.compose(features=problem.inputs[0], known=weights, loss=loss_of(problem))


class ResidualPrototypes(Settings, algorithm="residual_prototypes", omit=("seen",)):
    """Class means in an embedding that begins at the identity, with strength and head chosen on validation tasks."""

    remembered: CountOrZero = before("latent_steps", 256)
    """Most classes of meta-training that the prior of codes remembers. 0: there are no codes."""
    choices: tuple[tuple[str, str], ...] = ()
    """What is taken rather than chosen on validation tasks, as choices.json of another run says: NAME OPTION ..."""

    def build(self, problem: Problem) -> core.Method:
        """Residual prototypes on the problem's features, centred by the mean of the meta-training classes."""
        if len(problem.inputs) != 1 or problem.regression:
            shape = list(problem.inputs)
            raise ValueError(f"residual_prototypes works on feature vectors; the data gives inputs of shape {shape}.")
        if problem.examples is None:
            return self._with_choices(self.compose(centre=problem.inputs[0], seen=self.remembered))
        from fewstep.data import class_means

        examples = problem.examples()
        centre = _unit_mean(examples)
        seen = class_means(examples, centre, self.remembered).float() if self.remembered else 0
        return self._with_choices(self.compose(centre=centre, seen=seen))

    def _with_choices(self, method: core.Method) -> core.Method:
        given, known = dict(self.choices), [setting.name for setting in method.alternatives]
        if unknown := given.keys() - {*known}:
            raise ValueError(f"residual_prototypes chooses {', '.join(known)}, and no {min(unknown)}.")
        left = [s.only(given[s.name]) if s.name in given else s for s in method.alternatives]
        return replace(method, alternatives=left)


def _unit_mean(dataset: Dataset) -> Tensor:
    """The mean of rows that are first scaled to length 1."""
    from fewstep.data import l2_normalise, mean_input

    own = dataset.transform or (lambda rows: rows)
    return mean_input(replace(dataset, transform=lambda rows: l2_normalise(own(rows)))).float()


class Protomaml(Settings, algorithm="protomaml"):
    """Proto-MAML (Triantafillou et al. 2020): MAML whose last layer begins at the class prototypes."""

    network: Network = before("rate")
    """The network but for its last layer."""
    test_steps: CountOrZero | None = before("first_order", None)
    """Inner steps in validation and test. None: as in training."""
    adapt_norms: bool = before("first_order", False)
    """Let the inner loop move the normalisation's parameters too."""

    def build(self, problem: Problem) -> core.Method:
        """Proto-MAML on the problem's inputs."""
        network = self.network.build(problem, head=False)
        adapts = None if self.adapt_norms else networks.without_norms(network)
        return self.compose(network=network, adapts=adapts, loss=loss_of(problem))
