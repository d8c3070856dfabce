"""Recipes: each a function that returns a complete typed configuration."""

from collections.abc import Callable

from fewstep.recipes.config import Config, Testing, from_json, to_json
from fewstep.recipes.omniglot import (
    anil_omniglot,
    leo_omniglot,
    leo_omniglot_5way,
    maml_omniglot,
    protomaml_omniglot,
    protonet_omniglot,
)
from fewstep.recipes.sinusoid import (
    fomaml_sinusoid,
    imaml_sinusoid,
    maml_sinusoid,
    meta_curvature_rates_sinusoid,
    meta_curvature_sinusoid,
    meta_lstm_sinusoid,
    meta_sgd_sinusoid,
    reptile_sinusoid,
)

RECIPES: dict[str, Callable[[], Config]] = {
    "leo-omniglot": leo_omniglot,
    "leo-omniglot-5way": leo_omniglot_5way,
    "maml-omniglot": maml_omniglot,
    "anil-omniglot": anil_omniglot,
    "protonet-omniglot": protonet_omniglot,
    "protomaml-omniglot": protomaml_omniglot,
    "maml-sinusoid": maml_sinusoid,
    "meta-sgd-sinusoid": meta_sgd_sinusoid,
    "fomaml-sinusoid": fomaml_sinusoid,
    "meta-curvature-sinusoid": meta_curvature_sinusoid,
    "meta-curvature-rates-sinusoid": meta_curvature_rates_sinusoid,
    "reptile-sinusoid": reptile_sinusoid,
    "imaml-sinusoid": imaml_sinusoid,
    "meta-lstm-sinusoid": meta_lstm_sinusoid,
}

__all__ = ["RECIPES", "Config", "Testing", "from_json", "to_json"]
