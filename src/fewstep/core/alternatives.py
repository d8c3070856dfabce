"""What is left to be chosen after training: settings that no gradient finds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import nn

Values: TypeAlias = Mapping[str, float | Sequence[float]]
"""Numbers by their names in a learner: buffers, or parameters that nothing trains. They are saved with the rest."""


@dataclass(frozen=True)
class Alternatives:
    """A setting that validation tasks are to choose after training, and what it may be.

    Attributes:
        name: of the setting.
        options: values by label; all of them of the same names. The first is what is kept in doubt: a method that may
            fall back to a baseline has it there.

    Raises:
        ValueError: without an option, or for options that set different things.

    Example:
        >>> head = Alternatives("head", {"means": {"shares": (1.0, 0.0)}, "ridge": {"shares": (0.0, 1.0)}})
        >>> start = Blend(Prototypes(()), Ridge())
        >>> head.take(start, "ridge")
        >>> start.shares
        tensor([0., 1.])
    """

    name: str
    options: Mapping[str, Values]

    def __post_init__(self) -> None:
        names = {tuple(sorted(values)) for values in self.options.values()}
        if len(names) != 1:
            given = ", ".join(map(str, sorted(names))) or "none"
            raise ValueError(f"Alternatives: options of {self.name} must set the same things, but they set {given}.")

    def only(self, label: str) -> "Alternatives":
        """A single option is left, which will be taken.

        Raises:
            ValueError: when it is none of them.
        """
        if label not in self.options:
            raise ValueError(f"Alternatives: {self.name} may be {', '.join(self.options)}; got {label!r}.")
        return Alternatives(self.name, {label: self.options[label]})

    def renamed(self, rename: Callable[[str], str]) -> "Alternatives":
        """The same where what is set is called otherwise."""
        options = {
            label: {rename(name): value for name, value in values.items()} for label, values in self.options.items()
        }
        return Alternatives(self.name, options)

    def take(self, learner: nn.Module, label: str) -> None:
        """Set one of the options, in place.

        Raises:
            ValueError: when the learner has nothing of such a name, or something that is trained.
        """
        trained = {name for name, parameter in learner.named_parameters() if parameter.requires_grad}
        held = learner.state_dict()
        for name, value in self.options[label].items():
            if name not in held or name in trained:
                what = "would be trained" if name in trained else "is not there"
                raise ValueError(f"Alternatives: {self.name} sets {name}, which {what}.")
            held[name].copy_(torch.as_tensor(value))
