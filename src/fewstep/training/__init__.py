"""The outer loop: options, trainer, checkpoints, run folders."""

from fewstep.training.checkpoint import State, load_checkpoint, save_checkpoint
from fewstep.training.options import Training
from fewstep.training.trainer import Trainer

__all__ = ["State", "Trainer", "Training", "load_checkpoint", "save_checkpoint"]
