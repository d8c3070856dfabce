"""Where tasks come from: datasets grouped by class, task samplers, and the data that ship with the library."""

from typing import TYPE_CHECKING

from fewstep.core.lazy import lazily

if TYPE_CHECKING:
    from fewstep.data.any_queries import AnyQueries as AnyQueries
    from fewstep.data.dataset import Dataset as Dataset
    from fewstep.data.episodes import EpisodeSampler as EpisodeSampler
    from fewstep.data.episodes import TaskIndices as TaskIndices
    from fewstep.data.episodes import assemble as assemble
    from fewstep.data.features.datasets import embeddings as embeddings
    from fewstep.data.features.export import export_features as export_features
    from fewstep.data.features.normalise import class_means as class_means
    from fewstep.data.features.normalise import l2_normalise as l2_normalise
    from fewstep.data.features.normalise import mean_input as mean_input
    from fewstep.data.features.softmax import cosine_weights as cosine_weights
    from fewstep.data.features.softmax import softmax_weights as softmax_weights
    from fewstep.data.fewer_shots import FewerShots as FewerShots
    from fewstep.data.functions.oscillations import Oscillations as Oscillations
    from fewstep.data.functions.oscillations import OscillatorPrior as OscillatorPrior
    from fewstep.data.functions.oscillations import Oscillators as Oscillators
    from fewstep.data.functions.sine_or_line import SineOrLine as SineOrLine
    from fewstep.data.functions.sine_or_line import SineOrLinePrior as SineOrLinePrior
    from fewstep.data.functions.sine_or_line import SinesOrLines as SinesOrLines
    from fewstep.data.functions.sinusoids import Sinusoid as Sinusoid
    from fewstep.data.functions.sinusoids import Sinusoids as Sinusoids
    from fewstep.data.images.augment import Augmented as Augmented
    from fewstep.data.images.augmentation import Augmentation as Augmentation
    from fewstep.data.images.by_name import ImageData as ImageData
    from fewstep.data.images.characters import omniglot as omniglot
    from fewstep.data.images.characters import omniglot_originals as omniglot_originals
    from fewstep.data.images.cifar import cifar_fs as cifar_fs
    from fewstep.data.images.cifar import fc100 as fc100
    from fewstep.data.images.crops import views as views
    from fewstep.data.images.files import ImageFolder as ImageFolder
    from fewstep.data.images.files import image_folder as image_folder
    from fewstep.data.images.files import read_image as read_image
    from fewstep.data.images.folders import photograph_files as photograph_files
    from fewstep.data.images.folders import photograph_splits as photograph_splits
    from fewstep.data.images.folders import photographs as photographs
    from fewstep.data.images.imagenet import mini_imagenet as mini_imagenet
    from fewstep.data.images.imagenet import tiered_imagenet as tiered_imagenet
    from fewstep.data.images.store import ImageSource as ImageSource
    from fewstep.data.images.store import image_store as image_store
    from fewstep.data.known import KnownTasks as KnownTasks
    from fewstep.data.rows import RandomRows as RandomRows
    from fewstep.data.source import Deferred as Deferred
    from fewstep.data.source import Deferring as Deferring
    from fewstep.data.source import TaskSource as TaskSource
    from fewstep.data.storage.unpickling import unpickle as unpickle
    from fewstep.data.task_list import TaskList as TaskList
else:
    __getattr__, __dir__, __all__ = lazily(__name__)
