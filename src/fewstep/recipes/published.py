"""Published numbers, as their sources print them, and how sure we are of the quotation."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Seen = Literal["read in the source", "quoted by another source", "from memory, unchecked"]


@dataclass(frozen=True)
class Published:
    """A number that somebody else measured.

    Attributes:
        score: in percent, with the source's own ±: a 95% interval over test tasks, or where the source is LEO's
            paper or its code, the standard deviation over five runs.
        source: who printed it.
        seen: how we know it.
        differs: what a run of the recipe does otherwise than the published run.
    """

    score: str
    source: str
    seen: Seen = "read in the source"
    differs: str = ""

    def __str__(self) -> str:
        return f"{self.score} % by {self.source} ({self.seen})" + (f"; {self.differs}" if self.differs else "")


_RANDOM = "their own random split, here Vinyals'"
_UNKNOWN = f"{_RANDOM}; with settings that we do not know"
_TRANSDUCTION = f"{_RANDOM}; with transduction 97.68, 99.48, 89.43 and 97.12"
_SEEN_BEFORE = f"{_RANDOM}; their program's test characters are mostly among those of training"
_MORE_DATA = "trained on validation characters too, and queries normalised by running statistics of training"
_FINN = "Finn et al. 2017"
_NICHOL = "Nichol et al. 2018"
_LI = "Li et al. 2017"
_RAJESWARAN = "Rajeswaran et al. 2019, gradient descent"
_SNELL = "Snell et al. 2017"
_PARK = "Park and Oliva 2019, poster"
_BERTINETTO = "Bertinetto et al. 2019"
_SUNG = "Sung et al. 2018"
_TURNED = f"transductive; {_RANDOM}, with all characters of a task turned by one angle"
_ZINTGRAF = "Zintgraf et al. 2019, 32 channels"
_BEST = "with 128 channels 49.84 and 64.63, with 512 51.82 and 65.85; settings of the table that we do not know"
_ANTONIOU = "Antoniou et al. 2019"
_FIVE = "the mean of the five best models of a run, by validation"
_LEE = "Lee and Choi 2018"
_MASKS = "masks drawn in tests too"
_KIM = "Kim et al. 2018"
_MISHRA = "Mishra et al. 2018"
_DRAWN = "inductive; shots drawn for each task of training, an outer loop that we do not know"
_FILM = "inductive; normalised by running statistics of training, and queries of any classes"
_GRAPH = "transductive by design; batch normalisation by running statistics of training"
_CHUNKS = "transductive, in batches of 15 (25 at five shots) queries"
_MUNKHDALAI = "Munkhdalai et al. 2018, direct feedback"
_FIVE_BLOCKS = "five blocks, with settings that we do not know"
_SHIFTED_BLOCKS = "a residual network; an earlier version, by LEO's paper, 57.10 ± 0.70 and 70.04 ± 0.63"
_EXTERNAL = "by LEO's paper; a ResNet-50 that names 200 further classes of ImageNet, with settings that we do not know"


Row = Mapping[tuple[int, int], Published]
"""Numbers by ways and shots."""


def _row(scores: str, source: str, seen: Seen = "read in the source", differs: str = "") -> Row:
    """Scores of one and of five shots in five ways, then in twenty, as many as were published."""
    settings = zip(((5, 1), (5, 5), (20, 1), (20, 5)), scores.split(", "), strict=False)
    return {key: Published(score, source, seen, differs) for key, score in settings}


_QUOTED: Seen = "quoted by another source"
_MEMORY: Seen = "from memory, unchecked"

OMNIGLOT: Mapping[str, Row] = {
    "maml": _row("98.7 ± 0.4, 99.9 ± 0.1, 95.8 ± 0.3, 98.9 ± 0.2", _FINN, differs=_RANDOM),
    "maml_fc": _row("89.7 ± 1.1, 97.5 ± 0.6", _FINN, differs=_RANDOM),
    "fomaml": _row("98.3 ± 0.5, 99.2 ± 0.2, 89.4 ± 0.5, 97.9 ± 0.1", _NICHOL, _QUOTED, _UNKNOWN),
    "maml_plus_plus": _row("99.47, 99.93, 97.65, 99.33", _ANTONIOU, _QUOTED, f"{_RANDOM}; {_FIVE}"),
    "meta_sgd": _row("99.53 ± 0.26, 99.93 ± 0.09, 95.93 ± 0.38, 98.97 ± 0.19", _LI, _QUOTED, _RANDOM),
    "meta_curvature": _row("99.77 ± 0.17, 99.79 ± 0.10, 97.86 ± 0.26, 99.24 ± 0.07", _PARK, differs=_RANDOM),
    "mt_net": {
        (5, 1): Published("99.5 ± 0.3", _LEE, _MEMORY, f"{_RANDOM}; {_MASKS}"),
        (20, 1): Published("96.2 ± 0.4", _LEE, _MEMORY, f"{_RANDOM}; {_MASKS}"),
    },
    "reptile": _row("95.39 ± 0.09, 98.90 ± 0.10, 88.14 ± 0.15, 96.65 ± 0.33", _NICHOL, _QUOTED, _TRANSDUCTION),
    "imaml": _row("99.16 ± 0.35, 99.67 ± 0.12, 94.46 ± 0.42, 98.69 ± 0.1", _RAJESWARAN, _QUOTED, _SEEN_BEFORE),
    "protonet": _row("98.8, 99.7, 96.0, 98.9", _SNELL, differs=_MORE_DATA),
    "matching": _row("98.1, 98.9, 93.8, 98.5", "Vinyals et al. 2016", _QUOTED, "with settings that we do not know"),
    "relation": _row("99.6 ± 0.2, 99.8 ± 0.1, 97.6 ± 0.2, 99.1 ± 0.1", _SUNG, _MEMORY, _TURNED),
    "csn": _row("98.42, 99.37, 96.12, 98.43", _MUNKHDALAI, _QUOTED, _FIVE_BLOCKS),
    "snail": _row("99.07 ± 0.16, 99.78 ± 0.09, 97.64 ± 0.30, 99.36 ± 0.18", _MISHRA, differs=_DRAWN),
}
"""Accuracies in % on Omniglot by recipe function."""

_EVALUATED = (
    "inductive; with dropout, and queries normalised by running statistics of training; full context 43.56, 55.31"
)

MINI_IMAGENET: Mapping[str, Row] = {
    "maml": _row("48.70 ± 1.84, 63.11 ± 0.92", _FINN),
    "fomaml": _row("48.07 ± 1.75, 63.15 ± 0.91", _FINN),
    "maml_plus_plus": _row("52.15 ± 0.26, 68.32 ± 0.44", _ANTONIOU, _QUOTED, _FIVE),
    "anil": _row("46.7 ± 0.4, 61.5 ± 0.5", "Raghu et al. 2020", _MEMORY),
    "cavia": _row("47.24 ± 0.65, 59.05 ± 0.54", _ZINTGRAF, _QUOTED, _BEST),
    "meta_sgd": _row("50.47 ± 1.87, 64.03 ± 0.94", _LI, _QUOTED),
    "deml": _row("58.49 ± 0.91, 71.28 ± 0.69", "Zhou et al. 2018", differs=_EXTERNAL),
    "meta_curvature": _row("54.08 ± 0.88, 67.99 ± 0.73", "Park and Oliva 2019, MC2", _MEMORY),
    "t_net": {(5, 1): Published("50.86 ± 1.82", _LEE, _MEMORY, "the mean is quoted in an issue of their repository")},
    "mt_net": {(5, 1): Published("51.70 ± 1.84", _LEE, _QUOTED, _MASKS)},
    "bayesian_maml": {(5, 1): Published("53.80 ± 1.46", _KIM, _MEMORY, "five particles; settings that we do not know")},
    "llama": {
        (5, 1): Published("49.40 ± 1.83", "Grant et al. 2018", differs="an early revision; 64, 12 and 24 classes")
    },
    "platipus": {
        (5, 1): Published("50.13 ± 1.86", "Finn et al. 2018", _QUOTED, "samples; settings that we do not know")
    },
    "meta_lstm": _row("43.44 ± 0.77, 60.60 ± 0.71", "Ravi and Larochelle 2017"),
    "reptile": {
        (5, 1): Published("47.07 ± 0.26", _NICHOL, _QUOTED, "with transduction 49.97 ± 0.32"),
        (5, 5): Published("62.74 ± 0.37", _NICHOL, _QUOTED, "with transduction 65.99 ± 0.58"),
    },
    "imaml": _row("48.96 ± 1.84", _RAJESWARAN, _MEMORY),
    "protonet": _row("49.42 ± 0.78, 68.20 ± 0.66", _SNELL),
    "matching": _row("43.40 ± 0.78, 51.09 ± 0.71", "Ravi and Larochelle 2017", _QUOTED, _EVALUATED),
    "relation": _row("50.44 ± 0.82, 65.32 ± 0.70", _SUNG, _QUOTED, _CHUNKS),
    "tpn": _row("53.75 ± 0.86, 69.43 ± 0.67", "Liu et al. 2019", differs=_GRAPH),
    "csn": _row("56.88 ± 0.62, 71.94 ± 0.57", _MUNKHDALAI, _QUOTED, _SHIFTED_BLOCKS),
    "snail": _row("55.71 ± 0.99, 68.88 ± 0.92", _MISHRA, differs=_DRAWN),
    "tadam": _row("58.5 ± 0.3, 76.7 ± 0.3", "Oreshkin et al. 2018", differs=_FILM),
}
"""Accuracies in % on miniImageNet by recipe function."""

_BY_TPN = "Liu et al. 2019, who ran it"

TIERED_IMAGENET: Mapping[str, Row] = {
    "relation": _row("54.48 ± 0.93, 71.31 ± 0.78", _BY_TPN, differs=f"{_CHUNKS}; with settings that we do not know"),
    "tpn": _row("57.53 ± 0.96, 72.85 ± 0.74", "Liu et al. 2019", differs=_GRAPH),
}
"""Accuracies in % on tieredImageNet by recipe function."""

_OTHER = "four layers of 64 channels and settings of their own"

CIFAR_FS: Mapping[str, Row] = {
    "maml": _row("58.9 ± 1.9, 71.5 ± 1.0", _BERTINETTO, _QUOTED, _OTHER),
    "protonet": _row("55.5 ± 0.7, 72.0 ± 0.6", _BERTINETTO, _QUOTED, _OTHER),
    "relation": _row("55.0 ± 1.0, 69.3 ± 0.8", _BERTINETTO, _MEMORY, _OTHER),
}
"""Accuracies in % on CIFAR-FS by recipe function."""

_RUSU = "Rusu et al. 2019"
_CODE = "the authors' code, its README"
_WIDE = "center-crop embeddings of a WRN-28-10; ± is the standard deviation over five runs, trained on train and val"
_NOT_RUN = f"{_WIDE}; not run by us, for the embeddings cannot be fetched here"

_MULTIVIEW = _NOT_RUN.replace("center-crop", "multi-view")
_SIZE = "an MLP of unknown size"
_QIAO = "inductive; features of their own wide network, trained with validation classes, each with all its other images"
_GIDARIS = (
    "inductive; features of four blocks that were trained with a cosine classifier; their program 56.62 and 72.82"
)
_BAUER = "inductive; features of their own ResNet-34, with settings that we do not know"

LEO_FEATURES: Mapping[str, Mapping[str, Row]] = {
    "miniimagenet": {
        "leo": _row("61.89 ± 0.16, 77.65 ± 0.09", _CODE, differs=_NOT_RUN),
        "leo_paper": _row("61.76 ± 0.08, 77.59 ± 0.12", _RUSU, differs=_NOT_RUN),
        "leo_multiview": _row("63.97 ± 0.20, 79.49 ± 0.70", _RUSU, differs=_MULTIVIEW),
        "meta_sgd": _row("54.24 ± 0.03, 70.86 ± 0.04", _RUSU, differs=_NOT_RUN),
        "meta_curvature": _row("61.85 ± 0.10, 77.02 ± 0.11", _PARK, differs=_SIZE),
        "ppa": _row("59.60 ± 0.41, 73.74 ± 0.19", "Qiao et al. 2018, their program's README", differs=_QIAO),
        "dfsl": _row("56.20 ± 0.86, 73.00 ± 0.64", "Gidaris and Komodakis 2018", _QUOTED, _GIDARIS),
        "gaussian_prior": _row("56.30 ± 0.40, 73.90 ± 0.30", "Bauer et al. 2017", _QUOTED, _BAUER),
    },
    "tieredimagenet": {
        "leo": _row("66.25 ± 0.14, 81.77 ± 0.09", _CODE, differs=_NOT_RUN),
        "leo_paper": _row("66.33 ± 0.05, 81.44 ± 0.09", _RUSU, differs=_NOT_RUN),
        "meta_sgd": _row("62.95 ± 0.03, 79.34 ± 0.06", _RUSU, differs=_NOT_RUN),
        "meta_curvature": _row("67.21 ± 0.10, 82.61 ± 0.08", _PARK, differs=_SIZE),
    },
    "cifarfs": {},
}
"""Accuracies in % on the published embeddings by dataset and recipe function."""
