"""Published numbers, as their sources print them, and how sure we are of the quotation."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Seen = Literal["read in the source", "quoted by another source", "from memory, unchecked"]


@dataclass(frozen=True)
class Published:
    """A number that somebody else measured.

    Attributes:
        score: in percent, with the source's own ± (95% intervals over test tasks), or a squared error.
        source: who printed it.
        seen: how we know it.
        differs: what a run of the recipe does otherwise than the published run.
    """

    score: str
    source: str
    seen: Seen = "read in the source"
    differs: str = ""

    def __str__(self) -> str:
        differs = f"; {self.differs}" if self.differs else ""
        return f"{self.score} ({self.source}; {self.seen}{differs})"


_RANDOM = "their own random split, here Vinyals'"
_FINN = "Finn et al. 2017"


def _row(
    scores: tuple[str, ...], source: str, seen: Seen = "read in the source", differs: str = ""
) -> tuple[Published, ...]:
    return tuple(Published(score, source, seen, differs) for score in scores)


OMNIGLOT: Mapping[str, Mapping[tuple[int, int], Published]] = {
    method: dict(zip(((5, 1), (5, 5), (20, 1), (20, 5)), row, strict=True))
    for method, row in {
        "maml": _row(("98.7 ± 0.4", "99.9 ± 0.1", "95.8 ± 0.3", "98.9 ± 0.2"), _FINN, differs=_RANDOM),
        "fomaml": _row(("98.3 ± 0.5", "99.2 ± 0.2", "89.4 ± 0.5", "97.9 ± 0.1"), "Nichol et al. 2018",
                       "quoted by another source", f"{_RANDOM}; with settings that we do not know"),
        "reptile": _row(("95.39 ± 0.09", "98.90 ± 0.10", "88.14 ± 0.15", "96.65 ± 0.33"), "Nichol et al. 2018",
                        "quoted by another source", f"{_RANDOM}; with transduction 97.68, 99.48, 89.43, 97.12"),
        "imaml": _row(("99.16 ± 0.35", "99.67 ± 0.12", "94.46 ± 0.42", "98.69 ± 0.1"),
                      "Rajeswaran et al. 2019, gradient descent", "quoted by another source",
                      f"{_RANDOM}; theirs shares characters between training and test"),
        "meta-sgd": _row(("99.53 ± 0.26", "99.93 ± 0.09", "95.93 ± 0.38", "98.97 ± 0.19"), "Li et al. 2017",
                         "quoted by another source", _RANDOM),
        "meta-curvature": _row(("99.77 ± 0.17", "99.79 ± 0.10", "97.86 ± 0.26", "99.24 ± 0.07"),
                               "Park and Oliva 2019, poster", differs=_RANDOM),
        "protonet": _row(("98.8", "99.7", "96.0", "98.9"), "Snell et al. 2017",
                         differs="trained on training and validation characters, tested with running statistics"),
    }.items()
}  # fmt: skip

MAML_FC: Mapping[tuple[int, int], Published] = {
    (5, 1): Published("89.7 ± 1.1", _FINN, differs=_RANDOM),
    (5, 5): Published("97.5 ± 0.6", _FINN, differs=_RANDOM),
}

MINI_IMAGENET: Mapping[str, Mapping[int, Published]] = {
    "maml": {1: Published("48.70 ± 1.84", _FINN), 5: Published("63.11 ± 0.92", _FINN)},
    "fomaml": {1: Published("48.07 ± 1.75", _FINN), 5: Published("63.15 ± 0.91", _FINN)},
    "reptile": {
        1: Published("47.07 ± 0.26", "Nichol et al. 2018", "quoted by another source", "transductive: 49.97 ± 0.32"),
        5: Published("62.74 ± 0.37", "Nichol et al. 2018", "quoted by another source", "transductive: 65.99 ± 0.58"),
    },
    "imaml": {1: Published("48.96 ± 1.84", "Rajeswaran et al. 2019, gradient descent", "from memory, unchecked")},
    "meta-sgd": {
        1: Published("50.47 ± 1.87", "Li et al. 2017", "quoted by another source"),
        5: Published("64.03 ± 0.94", "Li et al. 2017", "quoted by another source"),
    },
    "meta-curvature": {
        1: Published("54.08 ± 0.88", "Park and Oliva 2019, MC2", "from memory, unchecked"),
        5: Published("67.99 ± 0.73", "Park and Oliva 2019, MC2", "from memory, unchecked"),
    },
    "meta-lstm": {
        1: Published("43.44 ± 0.77", "Ravi and Larochelle 2017"),
        5: Published("60.60 ± 0.71", "Ravi and Larochelle 2017"),
    },
    "anil": {
        1: Published("46.7 ± 0.4", "Raghu et al. 2020", "from memory, unchecked"),
        5: Published("61.5 ± 0.5", "Raghu et al. 2020", "from memory, unchecked"),
    },
    "protonet": {
        1: Published("49.42 ± 0.78", "Snell et al. 2017"),
        5: Published("68.20 ± 0.66", "Snell et al. 2017"),
    },
}

_BERTINETTO = "Bertinetto et al. 2019, four layers of 64"

CIFAR_FS: Mapping[str, Mapping[int, Published]] = {
    "maml": {
        1: Published("58.9 ± 1.9", _BERTINETTO, "quoted by another source"),
        5: Published("71.5 ± 1.0", _BERTINETTO, "quoted by another source"),
    },
    "protonet": {
        1: Published("55.5 ± 0.7", _BERTINETTO, "quoted by another source"),
        5: Published("72.0 ± 0.6", _BERTINETTO, "quoted by another source"),
    },
}
