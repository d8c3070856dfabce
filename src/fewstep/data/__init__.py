"""Where tasks come from: datasets grouped by class, task samplers, and the data that ship with the library."""

from typing import TYPE_CHECKING

from fewstep.core.lazy import lazily

if TYPE_CHECKING:
    from fewstep.data.dataset import Dataset
    from fewstep.data.episodes import EpisodeSampler, TaskIndices, assemble
    from fewstep.data.features.datasets import embeddings
    from fewstep.data.features.export import export_features
    from fewstep.data.features.normalise import l2_normalise, mean_input
    from fewstep.data.functions.oscillations import Oscillations, OscillatorPrior, Oscillators
    from fewstep.data.functions.sine_or_line import SineOrLine, SineOrLinePrior, SinesOrLines
    from fewstep.data.functions.sinusoids import Sinusoid, Sinusoids
    from fewstep.data.images.augment import Augmented
    from fewstep.data.images.augmentation import Augmentation
    from fewstep.data.images.by_name import ImageData
    from fewstep.data.images.characters import omniglot, omniglot_originals
    from fewstep.data.images.cifar import cifar_fs, fc100
    from fewstep.data.images.files import ImageFolder, image_folder, read_image
    from fewstep.data.images.folders import photograph_splits, photographs
    from fewstep.data.images.imagenet import mini_imagenet, tiered_imagenet
    from fewstep.data.images.store import ImageSource, image_store
    from fewstep.data.images.views import views
    from fewstep.data.source import Deferred, Deferring, TaskSource
    from fewstep.data.storage.unpickling import unpickle
    from fewstep.data.task_list import TaskList
else:
    __getattr__, __dir__ = lazily(__name__)

__all__ = [
    "Augmentation",
    "Augmented",
    "Dataset",
    "Deferred",
    "Deferring",
    "EpisodeSampler",
    "ImageData",
    "ImageFolder",
    "ImageSource",
    "Oscillations",
    "OscillatorPrior",
    "Oscillators",
    "SineOrLine",
    "SineOrLinePrior",
    "SinesOrLines",
    "Sinusoid",
    "Sinusoids",
    "TaskIndices",
    "TaskList",
    "TaskSource",
    "assemble",
    "cifar_fs",
    "embeddings",
    "export_features",
    "fc100",
    "image_folder",
    "image_store",
    "l2_normalise",
    "mean_input",
    "mini_imagenet",
    "omniglot",
    "omniglot_originals",
    "photograph_splits",
    "photographs",
    "read_image",
    "tiered_imagenet",
    "unpickle",
    "views",
]
