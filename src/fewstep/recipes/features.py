"""Recipes on stored features: LEO as its paper ran it, and what it is compared with.

Five ways. miniImageNet and tieredImageNet are the published embeddings (``fewstep data leo-embeddings``); the features
of CIFAR-FS, or of anything else, are the user's own (``--data.path FILE``). The paper's last stage is ``fewstep repeat
RECIPE --seeds 5 --data.train-on trainval``.
"""

from dataclasses import asdict, replace
from typing import Any, Literal

from fewstep.recipes.config import Algorithm, Config, Testing, unnamed
from fewstep.recipes.methods.adapting import (
    Anil,
    Cavia,
    Deml,
    Imaml,
    Maml,
    MamlPlusPlus,
    MetaCurvature,
    MetaLstm,
    MetaSgd,
    MtNet,
)
from fewstep.recipes.methods.leo import JointLeo, Leo, LeoNetwork
from fewstep.recipes.methods.network import Network
from fewstep.recipes.methods.others import NeuralProcess, Protomaml, Protonet, R2d2, Reptile, ResidualPrototypes
from fewstep.recipes.methods.probabilistic import BayesianMaml, Llama, Platipus
from fewstep.recipes.methods.remembering import Csn, Snail
from fewstep.recipes.problems.stored_features import Embeddings
from fewstep.recipes.space import Range
from fewstep.training import Training

Dataset = Literal["miniImageNet", "tieredImageNet", "CIFAR-FS"]

LEO_SPACE = (
    Range("training.rate", 1e-4, 5e-3, log=True),
    Range("method.dropout", 0.0, 0.6),
    Range("method.kl_weight", 1e-4, 3.0, log=True),
    Range("method.encoder_penalty_weight", 1e-9, 1e-3, log=True),
    Range("method.l2_weight", 1e-10, 1e-4, log=True),
    Range("method.orthogonality_weight", 1e-4, 10.0, log=True),
)
"""The paper's six hyper-parameters. It does not print its ranges; these hold all values of its authors' README with
room on either side, and higher outer rates for searches of a thousand meta-steps."""

RESIDUAL_SPACE = (
    Range("training.rate", 3e-5, 3e-3, log=True),
    Range("method.decay", 10.0, 1000.0, log=True),
    Range("method.scale", 0.3, 5.0, log=True),
    Range("training.tasks", 2.0, 8.0, log=True, whole=True),
)
"""How far a residual goes: on good features a short way is best, and the noise of few tasks. Its strength is chosen
after each training."""

PROTONET_SPACE = (Range("training.rate", 3e-5, 3e-3, log=True), Range("method.scale", 0.3, 30.0, log=True))
"""Distances between features of length 1 are small at first, which a scale makes up for."""

META_SGD_SPACE = (
    Range("training.rate", 1e-4, 5e-3, log=True),
    Range("method.rate", 0.1, 100.0, log=True),
    Range("method.dropout", 0.0, 0.6),
)
"""Inner rates start alike. They are far above those for networks: features have length 1, and the loss is a mean."""

# The authors' README: outer rate, λ₁, λ₂, dropout, β, γ.
_README: dict[tuple[Dataset, int], tuple[float, ...]] = {
    ("miniImageNet", 1): (2.739071e-4, 3.623413e-10, 0.188103, 0.307651, 0.756143, 5.756821e-6),
    ("miniImageNet", 5): (4.102361e-4, 8.540338e-9, 1.523998e-3, 0.300299, 0.466387, 2.661608e-7),
    ("tieredImageNet", 1): (8.659053e-4, 4.148858e-10, 5.451078e-3, 0.475126, 2.034189e-3, 8.302962e-5),
    ("tieredImageNet", 5): (6.110314e-4, 1.690399e-10, 2.481216e-2, 0.415158, 1.622811, 2.672450e-5),
}

# Table 6 of the paper, in the same order; it prints the probability of keeping.
_TABLE_6: dict[tuple[Dataset, int], tuple[float, ...]] = {
    ("miniImageNet", 1): (4.3653954e-4, 1.08982953e-4, 303.216647, 1 - 0.711524088, 0.124171967, 1.33365371e-9),
    ("miniImageNet", 5): (1.17573555e-3, 3.75922509e-6, 8.44225971e-3, 1 - 0.755402644, 4.40372182e-2, 5.39245830e-6),
    ("tieredImageNet", 1): (4.0645397e-4, 3.10725285e-8, 5180.09554, 1 - 0.644395979, 7.10800960e-6, 1.24305386e-8),
    ("tieredImageNet", 5): (7.3469522e-4, 4.90658551e-8, 8.1711619e-3, 1 - 0.628325359, 1.88644980e-3, 3.05077069e-6),
}

# The best of 40 by validation on middle-layer features of a ResNet-9 (docs/results.md), in the same order.
_FOUND: dict[tuple[Dataset, int], tuple[float, ...]] = {
    ("CIFAR-FS", 1): (2.05e-3, 1.34e-6, 8.67e-2, 0.32, 7.95e-4, 2.69e-4),
    ("CIFAR-FS", 5): (4.59e-3, 2.46e-5, 0.732, 0.504, 0.261, 9.68e-7),
}

_TRAINING = Training(
    steps=100_000, tasks=12, clip_value=0.1, clip_norm=0.1, nonfinite="decay", validation_tasks=2000, patience=10
)
_BRIEF = replace(_TRAINING, validate_every=100, validation_tasks=600, checkpoint_every=100)
"""For the smaller CIFAR-FS, on a CPU."""
_BRIEF_STEPS = {1: 1500, 5: 700}
"""By shots: about twice what the best of our search took, as more classes are trained on afterwards."""


def as_leo(dataset: Dataset, shots: int) -> Config:
    """Tasks, outer loop and test of LEO's paper; on CIFAR-FS the last two are shorter. The method is to be set.

    Where ten validations bring no new best, training stops: the paper stops early and does not say when.
    """
    brief = dataset == "CIFAR-FS"
    return unnamed(
        Embeddings(dataset=dataset, shots=shots),
        Leo(),
        replace(_BRIEF, steps=_BRIEF_STEPS[shots]) if brief else _TRAINING,
        Testing(tasks=10_000 if brief else 50_000),
    )


def _leo(base: Config, values: tuple[float, ...], formulation: Literal["official", "paper"] = "official") -> Config:
    rate, *weights = values
    names = ("l2_weight", "orthogonality_weight", "dropout", "kl_weight", "encoder_penalty_weight")
    method = Leo(**dict(zip(names, weights, strict=True)), formulation=formulation)
    return replace(base, method=method, training=replace(base.training, rate=rate))


def leo(dataset: Dataset, shots: int) -> Config:
    """LEO as its authors' code has it, with the values of their README; on CIFAR-FS, with those of a search of ours.

    The search was on middle-layer features of a ResNet-9 (docs/results.md). The published numbers are of five runs that
    were trained on validation classes too (``--data.train-on trainval``).
    """
    return _leo(as_leo(dataset, shots), (_README | _FOUND)[dataset, shots])


def leo_paper(dataset: Dataset, shots: int) -> Config:
    """LEO as its paper's text has it, with the values of its Table 6: not verified here.

    Nobody is known to have trained this formulation, which differs from the authors' code in a dozen places
    (docs/leo.md). Table 6 may well be for their code: λ₂ = 303 multiplies a sum here, and a mean there.
    """
    base = as_leo(dataset, shots)
    training = replace(base.training, task_reduction="sum", clip_scope="global")
    return _leo(replace(base, training=training), _TABLE_6[dataset, shots], "paper")


def leo_multiview(dataset: Dataset, shots: int) -> Config:
    """LEO on the multi-view embeddings, with the values for the centre crop: none are published for these."""
    config = leo(dataset, shots)
    return replace(config, data=Embeddings(dataset=dataset, shots=shots, views="multiview"))


def meta_sgd(dataset: Dataset, shots: int) -> Config:
    """Meta-SGD on features, as LEO's paper compares itself with: a linear classifier, five steps.

    The paper prints none of its settings; those of this recipe are ours.
    """
    method = MetaSgd(network=Network("mlp", hidden=()), rate=(1.0, 1.0), steps=5, dropout=0.3)
    return replace(as_leo(dataset, shots), method=method)


def meta_curvature(dataset: Dataset, shots: int) -> Config:
    """Meta-Curvature on features: a multi-layer perceptron, five steps, matrices of its own for each.

    Its paper reports this on LEO's embeddings without the size of the perceptron; one layer of 128 units is ours.
    """
    method = MetaCurvature(network=Network("mlp", hidden=(128,)), rate=1.0, steps=5, per_step=True)
    return replace(as_leo(dataset, shots), method=method)


def protonet(dataset: Dataset, shots: int) -> Config:
    """Prototypical network on features: a learned linear map and ReLU to as many dimensions; settings are ours."""
    return replace(as_leo(dataset, shots), method=Protonet(network=Network("mlp", hidden=(640,))))


# -- features of your own ----------------------------------------------------------------------------------------------

# Inner rates of MAML and its kin are the best of a few on validation tasks of CIFAR-FS (middle layer) after 150
# meta-steps, one for both shots: twice the rate of a linear classifier costs 18 to 24 points at 5 shots, half of it 2.
_LINEAR, _PERCEPTRON = Network("mlp", hidden=()), Network("mlp", hidden=(128,))
_BY_CLASS: dict[str, Any] = {"by_class": True, "encoder_depth": 2, "decoder_depth": 2}


def _own(config: Config, method: Algorithm | None = None, **training: Any) -> Config:
    """The same on features that the user gives, with another method if there is one."""
    options = replace(config.training, **training)
    return replace(config, data=Embeddings(shots=config.data.shots), method=method or config.method, training=options)


def on_own(shots: int, method: Algorithm, **training: Any) -> Config:
    """A method on features that the user gives, with as short an outer loop as on CIFAR-FS."""
    return _own(as_leo("CIFAR-FS", shots), method, **training)


def leo_features(shots: int) -> Config:
    """LEO on features of your own, as `fewstep embed` or any backbone makes them, with what a search found on CIFAR-FS.

    A search on your validation classes (``fewstep search``) will find better settings.
    """
    return _own(leo("CIFAR-FS", shots))


def leo_joint_features(shots: int) -> Config:
    """LEO on what a linear map and ReLU make of features of your own, learned by the same meta-gradient; untuned."""
    method = leo_features(shots).method
    return on_own(shots, JointLeo(**asdict(method), network=Network("mlp", hidden=(640,))))


def leo_network_features(shots: int) -> Config:
    """A linear classifier of your own features generated whole from one code for a task, then five steps; untuned."""
    return on_own(shots, LeoNetwork(network=_LINEAR, latent_rate=1.0, finetuning_steps=5, finetuning_rate=3.0))


def maml_features(shots: int) -> Config:
    """MAML on features of your own: a linear classifier, five steps; untuned."""
    return on_own(shots, Maml(network=_LINEAR, rate=5.0, steps=5))


def fomaml_features(shots: int) -> Config:
    """First-order MAML on features of your own, with the settings of MAML."""
    return on_own(shots, Maml(network=_LINEAR, rate=5.0, steps=5, first_order=True))


def maml_plus_plus_features(shots: int) -> Config:
    """MAML++ on features of your own: a linear classifier, five steps with rates of their own; untuned."""
    return on_own(shots, MamlPlusPlus(network=_LINEAR, rate=5.0))


def anil_features(shots: int) -> Config:
    """ANIL on features of your own: a layer of 128 units, and a linear classifier that alone is adapted; untuned."""
    return on_own(shots, Anil(network=_PERCEPTRON, rate=3.0, steps=5))


def bayesian_maml_features(shots: int) -> Config:
    """Bayesian MAML on features of your own: five linear classifiers, five steps; untuned."""
    return on_own(shots, BayesianMaml(network=_LINEAR, particles=5, rate=0.5, steps=5))


def llama_features(shots: int) -> Config:
    """LLAMA on features of your own: a linear classifier, five steps, as MAML; untuned."""
    return on_own(shots, Llama(network=_LINEAR, rate=5.0, steps=5))


def platipus_features(shots: int) -> Config:
    """PLATIPUS on features of your own: a linear classifier, five steps; untuned."""
    return on_own(shots, Platipus(network=_LINEAR, rate=5.0, steps=5))


def cavia_features(shots: int) -> Config:
    """CAVIA on features of your own: 100 numbers beside them, a layer of 128 units, five steps; untuned."""
    return on_own(shots, Cavia(network=_PERCEPTRON, rate=10.0, steps=5))


def cnp_features(shots: int) -> Config:
    """CNP on features of your own, each class encoded apart by 128 numbers, for these ways alone; untuned."""
    return on_own(shots, NeuralProcess(latents=0, **_BY_CLASS), rate=3e-3)


def neural_process_features(shots: int) -> Config:
    """NP on features of your own: as CNP, with a latent code of 128 numbers; untuned."""
    return on_own(shots, NeuralProcess(**_BY_CLASS), rate=3e-3)


def meta_sgd_features(shots: int) -> Config:
    """Meta-SGD on features of your own: a linear classifier, five steps; untuned."""
    return _own(meta_sgd("CIFAR-FS", shots))


def deml_features(shots: int) -> Config:
    """DEML on features of your own: a linear map and ReLU to 640 dimensions that name base classes too; untuned."""
    return on_own(shots, Deml(network=Network("mlp", hidden=(640,)), hidden=()))


def meta_curvature_features(shots: int) -> Config:
    """Meta-Curvature on features of your own: a layer of 128 units, five steps, matrices for each; untuned."""
    return _own(meta_curvature("CIFAR-FS", shots))


def t_net_features(shots: int) -> Config:
    """T-net on features of your own: a layer of 128 units, five steps; untuned."""
    return on_own(shots, MtNet(network=_PERCEPTRON, rate=1.0, steps=5, masked=False))


def mt_net_features(shots: int) -> Config:
    """MT-net on features of your own, otherwise as T-net; untuned."""
    return on_own(shots, MtNet(network=_PERCEPTRON, rate=1.0, steps=5))


def meta_lstm_features(shots: int) -> Config:
    """Meta-LSTM on features of your own: a linear classifier, ten steps; untuned."""
    return on_own(shots, MetaLstm(network=_LINEAR, steps=10))


def reptile_features(shots: int) -> Config:
    """Reptile on features of your own: a layer of 128 units, ten steps of Adam; untuned."""
    outer: dict[str, Any] = {"optimiser": "sgd", "rate": 1.0, "decay": "linear", "clip_value": None, "clip_norm": None}
    config = on_own(shots, Reptile(network=_PERCEPTRON, rate=1e-2, steps=10), **outer)
    return replace(config, data=Embeddings(shots=shots, train_shots=max(5, shots)))


def imaml_features(shots: int) -> Config:
    """iMAML on features of your own: a linear classifier, 16 steps, λ = 0.1; untuned."""
    return on_own(shots, Imaml(network=_LINEAR, rate=1.0, steps=16, prox=0.1))


def protonet_features(shots: int) -> Config:
    """Prototypical network on features of your own: a linear map and ReLU to 640 dimensions, a learned scale; untuned.

    Trained on 20-way tasks, as its paper recommends more ways than in testing. A search on your validation classes
    (``fewstep search``) will find better settings.
    """
    config = on_own(shots, Protonet(network=Network("mlp", hidden=(640,)), scale=1.0), tasks=3)
    return replace(config, data=Embeddings(shots=shots, train_ways=20))


def r2d2_features(shots: int) -> Config:
    """R2-D2 on features of your own: ridge regression after a linear map and ReLU to 640 dimensions; untuned."""
    return on_own(shots, R2d2(network=Network("mlp", hidden=(640,)), scale=10.0))


def snail_features(shots: int) -> Config:
    """SNAIL on features of your own, after a linear map and ReLU to 128 dimensions; for these ways alone; untuned."""
    return on_own(shots, Snail(network=Network("mlp", hidden=(128,)), most_shots=shots, filters=64))


def csn_features(shots: int) -> Config:
    """Conditionally shifted neurons on features of your own: two layers of 128 units, for these ways alone; untuned."""
    return on_own(shots, Csn(network=Network("mlp", hidden=(128, 128))))


def residual_prototypes_features(shots: int) -> Config:
    """Class means on centred features of your own, moved by a residual: validation chooses how far, none included.

    Trained on 20-way 1-shot tasks, in seconds. Whether the head is of class means or a ridge regression, its penalty,
    and steps on it, are chosen with it after training. So it stays near the best of what it would have to beat.
    """
    outer: dict[str, Any] = {"steps": 200, "tasks": 2, "rate": 5e-4, "average": 0.98, "patience": 0}
    outer |= {
        "clip_value": None,
        "clip_norm": None,
        "nonfinite": "stop",
        "validate_every": 200,
        "validation_tasks": 1000,
    }
    config = on_own(shots, ResidualPrototypes(), **outer)
    return replace(config, data=Embeddings(shots=shots, train_ways=20, train_shots=1))


def protomaml_features(shots: int) -> Config:
    """Proto-MAML on features of your own: a layer of 128 units, five steps from the classes' prototypes; untuned."""
    return on_own(shots, Protomaml(network=_PERCEPTRON, rate=1.0, steps=5))


OWN = (
    maml_plus_plus_features,
    *(leo_joint_features, leo_network_features, maml_features, fomaml_features, anil_features, cavia_features),
    *(bayesian_maml_features, llama_features, platipus_features),
    *(cnp_features, neural_process_features, deml_features),
    *(meta_curvature_features, t_net_features, mt_net_features),
    *(meta_lstm_features, reptile_features, imaml_features, protomaml_features, r2d2_features),
    *(snail_features, csn_features),
)
"""Every method that takes vectors, on features of your own, but for those that stand in tables of other data too."""
