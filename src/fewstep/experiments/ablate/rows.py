"""The rows of Table 2 of LEO's paper, as configurations of their own with what a search may change in each."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from fewstep.recipes.config import Config
from fewstep.recipes.features import LEO_SPACE, META_SGD_SPACE
from fewstep.recipes.methods.adapting import MetaSgd
from fewstep.recipes.methods.leo import JointLeo, Leo
from fewstep.recipes.methods.network import Network
from fewstep.recipes.space import Range


@dataclass(frozen=True)
class Ablation:
    """One row.

    Attributes:
        name: as the paper's table has it.
        slug: the same for file names.
        config: what is run, before its own search.
        space: what that search draws: what has an effect on the row.
    """

    name: str
    slug: str
    config: Config
    space: tuple[Range, ...]


_PENALTY, _KL = "encoder_penalty_weight", "kl_weight"
_LEO_ROWS: tuple[tuple[str, str, Mapping[str, Any], tuple[str, ...]], ...] = (
    # Without a latent step the encoder begins where adaptation ends, whatever it does.
    ("conditional generator only", "generator-only", {"latent_steps": 0, "finetuning_steps": 0}, (_PENALTY,)),
    ("conditional generator + fine-tuning", "generator-finetuning", {"latent_steps": 0}, (_PENALTY,)),
    ("LEO (random prior)", "random-prior", {"encoded": False}, (_PENALTY, _KL)),
    ("LEO (deterministic)", "deterministic", {"stochastic": False}, (_KL,)),
    ("LEO (no fine-tuning)", "no-finetuning", {"finetuning_steps": 0}, ()),
    ("LEO", "leo", {}, ()),
)
"""Name, slug, changes, and the hyper-parameters that have no effect then."""


def table_2(config: Config) -> tuple[Ablation, ...]:
    """Meta-SGD on the same features, and LEO with less and less taken away, in the order of the paper's Table 2.

    All have the data, the outer loop and the test of ``config``; what a row's search does not draw is as in there.
    Meta-SGD is a linear classifier with a learned start and a learned rate for every weight, which takes as many steps
    as LEO takes in either space; the paper does not say how many.

    Args:
        config: LEO on features.

    Raises:
        ValueError: when it is another method.
    """
    method = config.method
    if not isinstance(method, Leo) or isinstance(method, JointLeo):
        raise ValueError(f"the ablation of LEO's paper takes LEO apart; {config.recipe} is {type(method).__name__}.")
    steps = max(method.latent_steps, method.finetuning_steps)
    plain = MetaSgd(network=Network("mlp", hidden=()), rate=(1.0, 1.0), steps=steps, dropout=method.dropout)
    rows = [_row(config, "Meta-SGD (same features)", "meta-sgd", plain, META_SGD_SPACE)]
    for name, slug, changes, inert in _LEO_ROWS:
        space = tuple(one for one in LEO_SPACE if one.setting.removeprefix("method.") not in inert)
        rows.append(_row(config, name, slug, replace(method, **changes), space))
    return tuple(rows)


def _row(config: Config, name: str, slug: str, method: Leo | MetaSgd, space: tuple[Range, ...]) -> Ablation:
    recipe = config.recipe if slug == "leo" else f"{config.recipe} {slug}"
    return Ablation(name, slug, replace(config, recipe=recipe, method=method), space)
