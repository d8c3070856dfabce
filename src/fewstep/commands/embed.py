"""``fewstep embed``: the features of images, by a network of ``fewstep pretrain`` or of another library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from fewstep.commands.arguments import explained, options_of, overridden, split_name, value_of
from fewstep.commands.console import note
from fewstep.data.images.by_name import ImageData
from fewstep.data.texts import TABLES
from fewstep.experiments.pretraining_config import Views

USAGE = """\
fewstep embed RUN [DATASET] --out FEATURES [options]
  RUN       folder of a pre-training
  DATASET   what `fewstep pretrain` takes: cifar-fs, a folder of images, ...;
            that of RUN when omitted
  FEATURES  features.npz, features.safetensors (memory-mapped), or, without
            a suffix, a folder of DeepMind's pickles
fewstep embed RUN --help shows every option

By a network of another library, and of texts:
fewstep embed FOLDER --backbone timm:NAME --out FEATURES
fewstep embed TEXTS.csv --text COLUMN --backbone model2vec:NAME --out FEATURES
fewstep embed --backbone --help shows every option"""


@dataclass(frozen=True)
class Embed:
    """Write the features of all splits of a dataset: a layer's activations, averaged over space and views.

    Vectors are raw, not scaled to length 1: recipes do that. The network is kept beside them, as
    FEATURES.extractor.safetensors, so that what is trained on them can classify images.
    """

    images: Annotated[ImageData, tyro.conf.arg(name="")]
    """What is shown to the network, in the size that it was trained on."""
    out: Path | None = None
    """The features, which must be given: .npz, .safetensors (memory-mapped), .npy, or, without a suffix, a folder of
    DeepMind's pickles."""
    layer: str = "middle"
    """Whose activations: middle, the layer before the last, as in the LEO paper; last; the number of a convolution,
    such as 21; or a submodule's name."""
    views: Views = "center"
    """The centre of an image; or the mean over corners, centre and the mirror images of all five."""
    dtype: Literal["float16", "float32", "float64"] = "float32"
    """Of the numbers; the published embeddings are float32. float16 takes half the room and keeps three decimal
    digits."""
    device: str | None = None
    """"cpu", "cuda" or "cuda:1". None: where RUN was trained."""


def embed(arguments: Sequence[str]) -> None:
    """``fewstep embed RUN [DATASET] --out FEATURES [options]``."""
    if explained(arguments, USAGE):
        return
    if any(argument.partition("=")[0] == "--backbone" for argument in arguments):
        from fewstep.commands.embed_backbone import embed_backbone

        return embed_backbone(arguments)
    name, arguments = split_name(arguments)
    if name is None:
        raise ValueError(f"no pre-training was given.\n{USAGE}")
    if Path(name).suffix in TABLES:
        raise ValueError(f"{name} is a table of texts: say which network, --backbone sentence-transformers:NAME.")
    from fewstep.commands.embedding import default_images, write_features
    from fewstep.experiments.pretraining import PretrainingRun

    dataset, arguments = split_name(arguments)
    run = PretrainingRun.open(Path(name), note, value_of(arguments, "--device"))
    options = overridden(Embed(default_images(run, dataset)), arguments, f"fewstep embed {name}")
    if options.out is None:
        raise ValueError("no file for the features was given: say --out features.npz.")
    write_features(run, out=options.out, **options_of(options, "out", "device"))
