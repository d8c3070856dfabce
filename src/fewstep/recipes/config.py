"""The complete, typed configuration of a run, and its JSON form."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import cattrs
import tyro
from cattrs.strategies import configure_tagged_union

from fewstep.core.ranges import Count, CountOrZero, Seed, Threads, require_ranges
from fewstep.data.storage.files import json_text
from fewstep.data.storage.reading import reading
from fewstep.data.storage.settings import converter, mistakes
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
from fewstep.recipes.methods.others import (
    Dfsl,
    GaussianPrior,
    NeuralProcess,
    Ppa,
    Protomaml,
    Protonet,
    R2d2,
    Reptile,
    ResidualPrototypes,
)
from fewstep.recipes.methods.probabilistic import BayesianMaml, Llama, Platipus
from fewstep.recipes.methods.remembering import Csn, Matching, Relation, Snail, Tadam, Tpn
from fewstep.recipes.problems.functions import OscillationTasks, SineOrLineTasks, SinusoidTasks
from fewstep.recipes.problems.images import CifarImages, ImageNetImages, OmniglotImages
from fewstep.recipes.problems.omniglot_features import OmniglotFeatures
from fewstep.recipes.problems.stored_features import Embeddings
from fewstep.training import Training

if TYPE_CHECKING:
    from fewstep.training.device import Place

Images = OmniglotImages | OmniglotFeatures | CifarImages | ImageNetImages
Data = SinusoidTasks | SineOrLineTasks | OscillationTasks | Images | Embeddings
Adapted = Maml | MamlPlusPlus | Anil | Cavia | MetaSgd | Deml | MetaCurvature | MtNet | MetaLstm | Reptile | Imaml
Probabilistic = BayesianMaml | Llama | Platipus
Remembering = Matching | Relation | Tpn | Snail | Csn | Tadam
Fitted = Protonet | Protomaml | R2d2 | Ppa | Dfsl | GaussianPrior | NeuralProcess | ResidualPrototypes
Algorithm = Leo | JointLeo | LeoNetwork | Adapted | Fitted | Probabilistic | Remembering


@dataclass(frozen=True)
class Testing:
    """The test at the end of training, and what ``fewstep evaluate`` does by default."""

    tasks: Count = 2000
    """Test tasks, the same ones for every method and every training seed."""
    seed: Seed = 0
    """Of the test tasks."""
    queries: Count | None = None
    """Query examples of each class (regression: query points). None: all that remain (regression: 100)."""
    shots: tuple[Count, ...] = ()
    """Support sizes to test at. Empty: that of training."""
    steps: tuple[CountOrZero, ...] = ()
    """Numbers of inner steps to test at. Empty: that of training."""
    statistics: Literal["query", "support", "joined", "running"] | None = None
    """What batch normalisation of a query takes its statistics from: the rows of the whole "query" (transductive), the
    "support" alone, the support "joined" by that one query, or the support's "running" statistics along adaptation.
    None: as in training."""

    def __post_init__(self) -> None:
        require_ranges(self, "testing.")


@dataclass(frozen=True)
class Config:
    """Everything that a run depends on."""

    recipe: Annotated[str, tyro.conf.Suppress]
    """Name of the recipe."""
    data: Data
    """Where tasks come from."""
    method: Algorithm
    """What is meta-trained."""
    training: Training
    """The outer loop."""
    testing: Testing = Testing()
    """The test at the end."""
    seed: Seed = 0
    """Of the meta-parameters' initialisation, of training tasks and of noise."""
    device: str = "auto"
    """"auto", a GPU where there is one; "cpu", "cuda" or "cuda:1". A run keeps the one that it was begun on."""
    dtype: Literal["float32", "float64"] = "float32"
    """Floating-point type."""
    threads: Threads | None = None
    """CPU threads. None: as many as torch takes by itself. The same bits need the same number."""

    def __post_init__(self) -> None:
        require_ranges(self)

    def prepare_device(self) -> Place:
        """Device and dtype; sets the number of threads, and has the allocator keep freed memory.

        Raises:
            ValueError: for a device that is not there.
        """
        from fewstep.training.device import prepare_device

        return prepare_device(self.device, self.dtype, self.threads)

    @property
    def threads_of_each(self) -> int:
        """CPU threads of each of several processes: as said, else one."""
        return 1 if self.threads is None else self.threads

    def at_test(self) -> dict[str, Any]:
        """What the descents do otherwise in validation, in tests and in use than in training."""
        return self.method.at_test()


def unnamed(data: Data, method: Algorithm, training: Training, testing: Testing = Testing()) -> Config:
    """A configuration to which its recipe will give a name."""
    return Config("", data, method, training, testing)


_CONVERTER = converter()
for _union in (Data, Algorithm):
    configure_tagged_union(_union, _CONVERTER, tag_name="kind")


def to_json(config: Config) -> str:
    """Indented JSON, with a ``kind`` where one of several types is possible."""
    return json_text(_CONVERTER.unstructure(config))


def dotted(config: Config) -> dict[str, Any]:
    """The settings by dotted names, ``"training.rate"``, in JSON's types."""
    from fewstep.evaluation.tables import flat

    return dict(flat(json.loads(to_json(config))))


def differences(kept: Mapping[str, Any], wanted: Mapping[str, Any], shown: int = 5) -> str:
    """The settings in which two configurations differ, as :func:`dotted` gives them, in words; empty where in none.

    The device "auto" does not differ from any: what is in a folder goes on where it was begun.
    """
    both = {**kept, **wanted}
    names = [n for n in both if n not in kept or n not in wanted or not _same(n, kept[n], wanted[n])]
    told = [f"{n}: {kept.get(n, 'absent')} there, {wanted.get(n, 'absent')} here" for n in names[:shown]]
    return "; ".join([*told, *([f"and {len(names) - shown} more"] if len(names) > shown else [])])


def _same(name: str, kept: Any, wanted: Any) -> bool:
    """Whether two values of a setting mean the same: any device is "auto"; a path may have been kept as relative."""
    if kept == wanted or (name == "device" and "auto" in (kept, wanted)):
        return True
    return name == "data.path" and None not in (kept, wanted) and os.path.abspath(kept) == os.path.abspath(wanted)


def from_json(path: Path) -> Config:
    """Read a configuration from a file: what :func:`to_json` wrote, or the same in YAML (``.yaml``, ``.yml``).

    Raises:
        ValueError: when the file is not a configuration; the message lists what is wrong, and for a field that there
            is not, the nearest that there is.
    """
    with reading(path, "is no configuration", "restore it"):
        text = path.read_text(encoding="utf-8")
    if path.suffix not in YAML:
        return from_text(text, str(path))
    import yaml

    try:
        return _structured(yaml.safe_load(text), str(path))
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"{path} is no YAML: {' '.join(str(error).split())}") from error


YAML = (".yaml", ".yml")
"""Suffixes of configurations in YAML; any other is in JSON."""


def from_text(text: str, where: str) -> Config:
    """The configuration that :func:`to_json` made a text of; ``where`` it stands, for the message.

    Raises:
        ValueError: as :func:`from_json`.
    """
    try:
        content = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{where} is not a configuration of this version of fewstep: {error!r}") from error
    return _structured(content, where)


def _structured(content: Any, where: str) -> Config:
    if not isinstance(content, dict):
        raise ValueError(f"{where} is not a configuration: it must hold data, method and training by name")
    try:
        return _CONVERTER.structure(content, Config)
    except (cattrs.BaseValidationError, KeyError, TypeError) as error:
        wrong = mistakes(error)
        raise ValueError(f"{where} is not a configuration of this version of fewstep: {wrong}") from error
