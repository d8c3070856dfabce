"""Where tasks come from: datasets grouped by class, task samplers, and the data that ship with the library."""

from fewstep.data.augment import Augmentation, Augmented
from fewstep.data.cifar import cifar_fs, fc100
from fewstep.data.dataset import Dataset
from fewstep.data.embeddings import embeddings
from fewstep.data.episodes import EpisodeSampler, TaskIndices, assemble
from fewstep.data.export import export_features
from fewstep.data.image_data import ImageData
from fewstep.data.image_folders import photograph_splits, photographs
from fewstep.data.image_store import ImageSource, image_store
from fewstep.data.imagenet import mini_imagenet, tiered_imagenet
from fewstep.data.images import ImageFolder, image_folder, read_image
from fewstep.data.normalise import l2_normalise, mean_input
from fewstep.data.omniglot import omniglot, omniglot_originals
from fewstep.data.oscillations import Oscillations, OscillatorPrior, Oscillators
from fewstep.data.regression import Sinusoid, Sinusoids
from fewstep.data.sine_or_line import SineOrLine, SineOrLinePrior, SinesOrLines
from fewstep.data.source import Deferred, Deferring, TaskSource
from fewstep.data.task_list import TaskList
from fewstep.data.unpickling import unpickle
from fewstep.data.views import views

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
