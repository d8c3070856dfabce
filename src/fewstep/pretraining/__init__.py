"""Stage 1 of methods that adapt on features: base classification, and the features of all images."""

from fewstep.pretraining.features import FeatureExtractor, cached_features, embed
from fewstep.pretraining.pretrain import Pretraining, pretrain

__all__ = ["FeatureExtractor", "Pretraining", "cached_features", "embed", "pretrain"]
