"""Pre-trained networks of other libraries: images or texts to feature vectors."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, TypeAlias, final

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

Example: TypeAlias = str | Path | Image.Image
"""A text, or an image: its file, or as Pillow holds it."""


@final
@dataclass(frozen=True, eq=False)
class Embedder:
    """A frozen network of another library, which turns images or texts into feature vectors.

    Images are prepared as the network's authors do: size, crop, interpolation, mean and deviation are the library's own
    for this network. Only what an image file *is* is settled here: a camera's orientation tag is obeyed, transparent
    parts become white, 16 bits become 8, and grey becomes colour.

    Attributes:
        name: ``LIBRARY:NAME``, as it was asked for.
        of: what it takes.
        prepare: one example, as the network takes it; called by several threads at once.
        forward: prepared examples to features ``[n, d]``.

    Use it so::

        embed = embedder("sentence-transformers:all-MiniLM-L6-v2")
        features = embed(["where is my parcel?", "I lost my card"])  # [2, 384]
    """

    name: str
    of: Literal["images", "texts"]
    prepare: Callable[[Any], Any]
    forward: Callable[[list[Any]], Tensor]

    @torch.no_grad()
    def __call__(self, examples: Sequence[Example]) -> Float[Tensor, "rows features"]:
        """Features of some examples, which pass through the network together: float32, on the CPU.

        Raises:
            FileNotFoundError: if there is no such image.
            ValueError: if an image is damaged, or the network gives no vectors.
        """
        if self.of == "texts":
            prepared = list(examples)
        else:
            with ThreadPoolExecutor() as pool:
                prepared = list(pool.map(self.prepare, examples))
        features = self.forward(prepared).float().cpu()
        if features.shape[0] != len(examples) or features.dim() != 2:
            raise ValueError(
                f"{self.name} gives features {list(features.shape)} for {len(examples)} {self.of}, and not one vector "
                "for each: choose another network."
            )
        return features


def embedder(name: str, device: torch.device | str = "cpu") -> Embedder:
    """A network by its name: ``timm:NAME``, ``open_clip:NAME/WEIGHTS``, ``sentence-transformers:NAME`` or
    ``model2vec:NAME``.

    A name is one of the library's hub, which needs a network once, or a folder that was fetched from there. Weights are
    read from safetensors, or by ``torch.load(weights_only=True)``; no code of a model's repository runs.

    Args:
        name: the library and the network in it. Of open_clip's, ``ViT-B-32/laion2b_s34b_b79k`` are architecture and
            weights, whose place may be taken by a file of them.
        device: where it computes; model2vec's tables are always looked up on the CPU.

    Raises:
        ValueError: if there is no such library, if it is not installed or does not fit the installed torch, or if the
            network cannot be loaded: the message says what to fetch and where to put it.
    """
    library, colon, network = name.partition(":")
    if library not in _LOADERS or not colon or not network:
        raise ValueError(
            f"there is no backbone {name!r}: give {', '.join(f'{known}:NAME' for known in _LOADERS)}, where NAME is a "
            "model of that library's hub, or a folder that it was fetched to."
        )
    return _LOADERS[library](network, torch.device(device))


def kind_of(name: str) -> Literal["images", "texts"]:
    """What a backbone takes, by its name alone. Of a library that is not known, images."""
    return "texts" if name.partition(":")[0] in ("sentence-transformers", "model2vec") else "images"


def _timm(name: str, device: torch.device) -> Embedder:
    with _importing("timm", "timm"):
        import timm
    with _loading("timm", name):
        source = f"local-dir:{name}" if Path(name).is_dir() else name
        model = timm.create_model(source, pretrained=True, num_classes=0).eval().to(device)
        transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    return _of_images(f"timm:{name}", transform, model, device)


def _open_clip(name: str, device: torch.device) -> Embedder:
    with _importing("open_clip", "open-clip"):
        import open_clip
    with _loading("open_clip", name):
        architecture, _, weights = name.partition("/")
        if Path(name).is_dir() or name.startswith("hf-hub:"):
            architecture, weights = (f"local-dir:{name}" if Path(name).is_dir() else name), ""
        elif not weights:
            known = ", ".join(open_clip.list_pretrained_tags_by_model(name)) or "none that open_clip knows"
            raise ValueError(f"say which weights, as {name}/WEIGHTS; for this network there are {known}")
        model, transform = open_clip.create_model_from_pretrained(architecture, weights or None, device=device)
    return _of_images(f"open_clip:{name}", transform, model.eval().encode_image, device)


def _of_images(
    name: str, transform: Callable[[Image.Image], Tensor], model: Callable[[Tensor], Tensor], device: torch.device
) -> Embedder:
    from fewstep.data.images.files import open_image

    def prepare(example: Example) -> Tensor:
        return transform(example.convert("RGB") if isinstance(example, Image.Image) else open_image(Path(example)))

    return Embedder(name, "images", prepare, lambda prepared: model(torch.stack(prepared).to(device)))


def _sentence_transformers(name: str, device: torch.device) -> Embedder:
    with _importing("sentence_transformers", "sentence-transformers"):
        from sentence_transformers import SentenceTransformer
    with _loading("sentence-transformers", name):
        model = SentenceTransformer(name, device=str(device), trust_remote_code=False)

    def forward(texts: list[str]) -> Tensor:
        found: Tensor = model.encode(texts, convert_to_tensor=True, show_progress_bar=False)
        return found

    return Embedder(f"sentence-transformers:{name}", "texts", str, forward)


def _model2vec(name: str, device: torch.device) -> Embedder:
    with _importing("model2vec", "model2vec"):
        from model2vec import StaticModel
    with _loading("model2vec", name):
        model = StaticModel.from_pretrained(name, force_download=False)
    return Embedder(f"model2vec:{name}", "texts", str, lambda texts: torch.from_numpy(model.encode(texts)))


_LOADERS: dict[str, Callable[[str, torch.device], Embedder]] = {
    "timm": _timm,
    "open_clip": _open_clip,
    "sentence-transformers": _sentence_transformers,
    "model2vec": _model2vec,
}


@contextmanager
def _importing(module: str, extra: str) -> Iterator[None]:
    """Say what is missing when a library cannot be imported."""
    try:
        yield
    except Exception as error:  # what a torchvision for another torch raises depends on who meets it first
        if isinstance(error, ModuleNotFoundError) and error.name == module:
            raise ValueError(f"{module} is not installed: pip install 'fewstep[{extra}]'") from error
        reason = _misfit(error) or f"{error}; pip install 'fewstep[{extra}]' installs what it needs"
        raise ValueError(f"{module} cannot be imported: {reason}") from error


def _misfit(error: BaseException | None) -> str:
    """That torchvision does not fit torch, with both versions, if that is what an error comes from."""
    texts = ""
    while error is not None:
        texts, error = f"{texts} {error}", error.__cause__ or error.__context__
    try:
        vision, needs = metadata.version("torchvision"), metadata.requires("torchvision") or []
    except metadata.PackageNotFoundError:
        return ""
    if "torchvision" not in texts:
        return ""
    wanted = next((found[1] for need in needs if (found := re.match(r"torch\s*\(?==([\d.]+)", need))), None)
    here = torch.__version__
    if wanted in (None, here.partition("+")[0]):
        return (
            f"torchvision {vision} does not load with torch {here}, though made for this version: one of them is built "
            "for CUDA and the other is not. Install both from one index, such as pip install torch torchvision "
            "--index-url https://download.pytorch.org/whl/cpu"
        )
    return (
        f"torchvision {vision} is made for torch {wanted}, and torch {here} is installed: pip install torchvision "
        f"'torch=={here.partition('+')[0]}' takes one that fits"
    )


@contextmanager
def _loading(library: str, name: str) -> Iterator[None]:
    """Say what to fetch when a network cannot be loaded: libraries and their hub fail in every way there is."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)  # a hub without a network is told of five times for each file
    try:
        yield
    except Exception as error:
        known = f"{name} is a folder here" if Path(name).is_dir() else f"there is no folder {name} here"
        reason = " ".join(str(error).split())[:300]
        raise ValueError(
            f"{library}:{name} cannot be loaded ({type(error).__name__}: {reason}); {known}. A name is looked up in "
            "the hub, which needs a network. Without one, fetch it elsewhere by `hf download ORGANISATION/NAME "
            f"--local-dir FOLDER`, bring the folder here, and give {library}:FOLDER."
        ) from error
    finally:
        logging.disable(level)
