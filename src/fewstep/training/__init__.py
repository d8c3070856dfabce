"""The outer loop: options, trainer, checkpoints, run folders."""

from typing import TYPE_CHECKING

from fewstep.core.lazy import lazily

if TYPE_CHECKING:
    from fewstep.training.checkpoint import State, load_checkpoint, save_checkpoint
    from fewstep.training.options import Training
    from fewstep.training.trainer import Trainer
else:
    __getattr__, __dir__ = lazily(__name__)

__all__ = ["State", "Trainer", "Training", "load_checkpoint", "save_checkpoint"]
