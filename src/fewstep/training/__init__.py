"""The outer loop: options, trainer, checkpoints, run folders."""

from typing import TYPE_CHECKING

from fewstep.core.lazy import lazily

if TYPE_CHECKING:
    from fewstep.training.checkpoint import State as State
    from fewstep.training.checkpoint import load_checkpoint as load_checkpoint
    from fewstep.training.checkpoint import save_checkpoint as save_checkpoint
    from fewstep.training.options import Training as Training
    from fewstep.training.stopping import Stopped as Stopped
    from fewstep.training.stopping import stoppable as stoppable
    from fewstep.training.trainer import Trainer as Trainer
else:
    __getattr__, __dir__, __all__ = lazily(__name__)
