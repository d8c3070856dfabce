"""Where tasks come from: datasets grouped by class, task samplers, and the data that ship with the library."""

from fewstep.data.dataset import Dataset
from fewstep.data.episodes import EpisodeSampler, TaskIndices, assemble
from fewstep.data.images import ImageFolder, image_folder, read_image
from fewstep.data.normalise import l2_normalise
from fewstep.data.omniglot import omniglot, omniglot_originals
from fewstep.data.regression import Sinusoid, Sinusoids
from fewstep.data.source import Deferred, Deferring, TaskSource
from fewstep.data.task_list import TaskList

__all__ = [
    "Dataset",
    "Deferred",
    "Deferring",
    "EpisodeSampler",
    "ImageFolder",
    "Sinusoid",
    "Sinusoids",
    "TaskIndices",
    "TaskList",
    "TaskSource",
    "assemble",
    "image_folder",
    "l2_normalise",
    "omniglot",
    "omniglot_originals",
    "read_image",
]
