"""``fewstep embed --backbone``: features of images or texts, by a pre-trained network of another library."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from fewstep.commands.arguments import parsed, split_name
from fewstep.commands.console import note, point_to, say, warn
from fewstep.core.ranges import Count
from fewstep.data.features.datasets import writer_for
from fewstep.data.features.export import StoredAs
from fewstep.data.images.by_name import TITLES, ImageData
from fewstep.data.images.class_folders import contents_of
from fewstep.data.images.folders import photograph_files
from fewstep.data.texts import TABLES, read_texts
from fewstep.training.pretraining.backbones import Embedder, Example, embedder, kind_of
from fewstep.training.pretraining.examples import export_examples, export_images

USAGE = """\
fewstep embed IMAGES --backbone timm:NAME | open_clip:NAME/WEIGHTS --out FEATURES
fewstep embed TEXTS --text COLUMN [--labels COLUMN] [--split COLUMN]
              --backbone sentence-transformers:NAME | model2vec:NAME --out FEATURES
  IMAGES    a folder with a folder for each class, or with images alone;
            cifar-fs, omniglot, ...
  TEXTS     a .csv, .tsv or .parquet file
  NAME      of the library's hub, or a folder that was fetched from there"""


@dataclass(frozen=True)
class EmbedBackbone:
    """Write the features of images or texts, by a pre-trained network of timm, open_clip, sentence-transformers or
    model2vec, which prepares them in its own way.

    Vectors are as the network gives them. Without classes, of a folder of images alone or a table without --labels,
    the file has features alone: for `fewstep predict`.
    """

    source: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="IMAGES|TEXTS")]
    """A folder of images, the name of a dataset, or a table of texts."""
    backbone: str
    """timm:NAME, open_clip:NAME/WEIGHTS, sentence-transformers:NAME or model2vec:NAME; NAME is one of the library's
    hub, or a folder that was fetched from there."""
    out: Path
    """The features: .npz, .safetensors (memory-mapped), .npy, or, without a suffix, a folder of DeepMind's pickles."""
    text: str | None = None
    """Of a table: the column of texts."""
    labels: str | None = None
    """Of a table: the column of classes."""
    split: str | None = None
    """Of a table: the column that says train, val or test; every class is in one of them. Of a folder: the file that
    says which class is in which split. None: as the folder says, or `fewstep fit` divides the classes."""
    dtype: StoredAs = "float32"
    """Of the numbers. float16 takes half the room and keeps three decimal digits."""
    batch: Count = 64
    """Images or texts that pass through the network together."""
    device: str = "auto"
    """"cpu", "cuda" or "cuda:1"; auto is a GPU where there is one."""


def embed_backbone(arguments: Sequence[str]) -> None:
    """``fewstep embed SOURCE --backbone LIBRARY:NAME --out FEATURES [options]``."""
    from fewstep.training.device import device_here

    if split_name(arguments)[0] is None and not {"-h", "--help"} & set(arguments):
        raise ValueError(f"no images and no texts were given.\n{USAGE}")
    asked = parsed(EmbedBackbone, arguments, "fewstep embed")
    writer_for(asked.out)  # what can be known to fail fails before a network is loaded
    if asked.out.suffix == ".pkl":
        raise ValueError(f"give --out features.npz, not {asked.out}.")
    material = _material(asked)
    note(f"loading {asked.backbone}")  # in the hub of its library, which may take long to be missed
    embed = embedder(asked.backbone, device_here(asked.device))
    _write(asked, material, embed)


@dataclass(frozen=True)
class _Material:
    """What is to be embedded: examples, with classes and splits where they are known; or a dataset by its name."""

    examples: Sequence[Example] = ()
    labels: Sequence[str] | None = None
    splits: Sequence[str] | None = None
    images: ImageData | None = None


def _material(asked: EmbedBackbone) -> _Material:
    path = Path(asked.source)
    table = path.suffix in TABLES
    takes = kind_of(asked.backbone)
    if table != (takes == "texts"):
        other = "timm or open_clip takes images" if table else "sentence-transformers or model2vec takes texts"
        kind = "a table of texts" if table else "no table of texts (.csv, .tsv, .parquet)"
        raise ValueError(f"{asked.backbone} takes {takes}, and {asked.source} is {kind}: a backbone of {other}.")
    if table:
        if asked.text is None:
            raise ValueError(f"say which column of {path} holds the texts: --text COLUMN.")
        if asked.split is not None and asked.labels is None:
            raise ValueError("a split is one of classes: say which column holds them, --labels COLUMN.")
        return _Material(*read_texts(path, asked.text, asked.labels, asked.split))
    if asked.text is not None or asked.labels is not None:
        raise ValueError("--text and --labels name columns of a table of texts: leave them out for images.")
    if asked.source in TITLES:
        return _Material(images=ImageData(asked.source))
    if path.is_dir() and (flat := contents_of(path)).images and not flat.folders:
        return _Material(flat.images)
    by_split = photograph_files(path, split_file=asked.split)
    rows = [(split, name, file) for split, of in by_split.items() for name, files in of.items() for file in files]
    splits = None if "" in by_split else [split for split, _, _ in rows]
    return _Material([file for *_, file in rows], [name for _, name, _ in rows], splits)


def _write(asked: EmbedBackbone, material: _Material, embed: Embedder) -> None:
    from fewstep.commands.progress import counting_bar

    images = material.images
    datasets = {} if images is None else {split: images.examples(split, note) for split in images.splits()}
    rows = len(material.examples) + sum(map(len, datasets.values()))
    began = time.perf_counter()
    with counting_bar("embedding", rows, embed.of) as progress:
        if datasets:
            export_images(embed, datasets, asked.out, dtype=asked.dtype, batch=asked.batch, progress=progress)
        else:
            export_examples(
                embed,
                material.examples,
                asked.out,
                labels=material.labels,
                splits=material.splits,
                dtype=asked.dtype,
                batch=asked.batch,
                progress=progress,
            )
    seconds = time.perf_counter() - began
    say(f"{rows:,} {embed.of} by {embed.name} in {seconds:.1f} s ({rows / seconds:,.0f} {embed.of}/s)")
    point_to("features", asked.out)
    if datasets or material.labels is not None:
        _look_at(asked.out, bool(datasets) or material.splits is not None)
    else:
        say("they have no classes: give them to `fewstep predict` as its --query")


def _look_at(out: Path, split: bool) -> None:
    """What `fewstep data inspect` warns of, and what comes next."""
    from fewstep.data.features.report import inspect_embeddings

    for warning in inspect_embeddings(out).warnings:
        warn("warning", f"of the features, {warning}")
    if not split:
        say("no split of the classes was given: `fewstep fit` divides them by itself")
    say(f"next: {shlex.join(['fewstep', 'fit', str(out)])}")
