"""Networks by name, with settings that train them well."""

import re
from dataclasses import replace

from fewstep.data import Augmentation
from fewstep.training.pretraining.options import Architecture, Pretraining

NETWORKS = ("convnet", "resnet-9", "resnet-12", "wrn-28-10")
"""Names to suggest; any ``wrn-DEPTH-FACTOR`` is one."""

PHOTOGRAPH_SIZE = 93
"""Side to which photographs are reduced: its 80×80 centre is 86% of it, as in the LEO paper."""
_SMALL = 64  # images of fewer pixels a side are trained on at their own size


TABLE_4 = {"mini-imagenet": (270, (0.3, 0.5, 0.7, 0.8, 0.9)), "tiered-imagenet": (114, (0.4, 0.5, 0.6, 0.7, 0.8))}
"""Epochs, and where the rate falls, in the LEO paper: 10,000 and 50,000 steps of 1024 images."""


def preset(network: str, size: int, dataset: str = "") -> Pretraining:
    """Settings for a network by name, on images of ``size`` × ``size`` pixels.

    ``wrn-28-10`` has those of the LEO paper (Rusu et al. 2019, appendix B.2 and Table 4: dropout 0.5, SGD with
    Nesterov momentum 0.9, rate 0.1 times 0.2 at 30, 50, 70, 80 and 90% of the steps, an L2 penalty of 5e-4, batches of
    1024), whose 10,000 steps on miniImageNet are 270 epochs; ``tiered-imagenet`` has a row of its own. Other depths and
    factors share them. The residual networks of nine and twelve layers have one cycle of the learning rate, ours;
    ``convnet`` is for images as small as those of Omniglot.

    Photographs are augmented as in "inception" training: crops of 8 to 100% of the area, scaled to 86% of the side (80
    pixels of 93), mirrored, with changed colours. Images below 64 pixels a side are shifted by up to an eighth of it
    and mirrored, but for the characters of ``omniglot``.

    Raises:
        ValueError: for an unknown name.
    """
    small = size < _SMALL
    if small:
        augmentation = Augmentation(size // 8, flip=dataset != "omniglot")
    else:
        augmentation = Augmentation(0, flip=True, colour=0.4, area=(0.08, 1.0), side=round(size * 80 / PHOTOGRAPH_SIZE))
    sgd = Pretraining(
        Architecture(), epochs=14, batch=256, optimiser="sgd", rate=0.15, weight_decay=5e-4, augmentation=augmentation
    )
    if network == "convnet":
        return Pretraining(Architecture(), epochs=10, augmentation=Augmentation(size // 8, padding="zeros"))
    if network == "resnet-9":
        return replace(sgd, network=Architecture("resnet9"))
    if network == "resnet-12":
        return replace(sgd, network=Architecture("resnet12"), epochs=60, batch=128, rate=0.1)
    if (named := re.fullmatch(r"wrn-(\d+)-(\d+)", network)) is None:
        raise ValueError(f"there is no network {network!r}: give one of {', '.join(NETWORKS)}, or another wrn-D-K.")
    wide = Architecture(
        "wrn", depth=int(named[1]), factor=int(named[2]), dropout=0.5, strides=(1, 2, 2) if small else (2, 2, 2)
    )
    epochs, milestones = TABLE_4.get(dataset, TABLE_4["mini-imagenet"])
    paper = replace(sgd, network=wide, epochs=epochs, batch=1024, rate=0.1, label_smoothing=0.0)
    return replace(paper, schedule="steps", milestones=milestones)
