"""Stage 1 of methods that adapt on features: base classification, and the features of all images."""

from typing import TYPE_CHECKING

from fewstep.core.lazy import lazily

if TYPE_CHECKING:
    from fewstep.training.pretraining.extractor import FeatureExtractor as FeatureExtractor
    from fewstep.training.pretraining.features import cached_features as cached_features
    from fewstep.training.pretraining.features import embed as embed
    from fewstep.training.pretraining.options import Architecture as Architecture
    from fewstep.training.pretraining.options import Pretraining as Pretraining
    from fewstep.training.pretraining.pretrainer import Pretrainer as Pretrainer
    from fewstep.training.pretraining.pretrainer import pretrain as pretrain
    from fewstep.training.pretraining.standardised import Standardised as Standardised
    from fewstep.training.pretraining.validation import nearest_mean_scores as nearest_mean_scores
else:
    __getattr__, __dir__, __all__ = lazily(__name__)
