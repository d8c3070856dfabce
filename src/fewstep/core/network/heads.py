"""Output layers that are made for each task."""

from abc import abstractmethod

from jaxtyping import Float
from torch import Tensor, nn

from fewstep.core.network.row_weights import RowWeights


class TaskHead:
    """Marks an output layer with slots that a start fills for every task.

    Unfilled it passes its input through, so that the network is its own feature extractor.
    """

    ways: int | None = None
    """The number of classes that it is for, where meta-training fixes it; None: any."""


class GeneratedHead(TaskHead):
    """Marks a linear one, whose slots are its weights (see ``networks.heads``): it answers rows one by one."""


class MemoryHead(TaskHead, nn.Module):
    """An output layer without weights of its own for a task: it answers by looking at the task's support.

    Slots, which :class:`~fewstep.core.Memory` fills: ``rows`` ``[support, *features]``, the embedded support;
    ``labels`` ``[support, ways]``; and ``weights`` ``[support]``, by which its rows count, 0 for padding. The last two
    are there already when the support is embedded.

    Example:
        >>> class Nearest(MemoryHead):  # logits −Σ ‖x − x_i‖² over the rows of a class
        ...     def attend(self, x):
        ...         return -(x[:, None] - self.rows).square().sum(2) @ (self.labels * self.weights[:, None])
        >>> learner = Learner(nn.Sequential(nn.Linear(8, 16), Nearest()), Memory(), [])
        >>> Method(learner, Backprop()).objective(clusters, None).objective.backward()
    """

    rows: Tensor | None
    labels: Tensor
    weights: Tensor

    def __init__(self) -> None:
        super().__init__()
        for slot in ("rows", "labels", "weights"):
            self.register_buffer(slot, None, persistent=False)

    def forward(self, x: Float[Tensor, "rows *features"]) -> Float[Tensor, "asked *outputs"]:
        """Logits, or ``x`` when the support is not given."""
        return x if self.rows is None else self.attend(x)

    @abstractmethod
    def attend(self, x: Float[Tensor, "rows *features"]) -> Float[Tensor, "rows ways"]:
        """Logits of embedded query rows, by what is in the slots."""

    @property
    def remembered(self) -> Tensor:
        """The embedded support."""
        assert self.rows is not None, "forward has seen it"
        return self.rows


class JointHead(MemoryHead, RowWeights):
    """A memory head that answers support and queries together: a row's answer depends on the others (transductive).

    Further slots: ``row_weight`` ``[rows]``, by which queries count; and ``whole``, which when filled asks for the
    answers of all rows, those of the support first.
    """

    row_weight: Tensor | None
    whole: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        for slot in ("row_weight", "whole"):
            self.register_buffer(slot, None, persistent=False)

    def attend(self, x: Float[Tensor, "rows *features"]) -> Float[Tensor, "asked ways"]:
        """Logits of the queries, or of all rows."""
        found = self.attend_all(x)
        return found[len(self.remembered) :] if self.whole is None else found

    @abstractmethod
    def attend_all(self, x: Float[Tensor, "rows *features"]) -> Float[Tensor, "all_rows ways"]:
        """Logits of the support's rows, then of the queries."""


def generated_head(network: nn.Module) -> str:
    """The prefix of the slots of a network's one generated head: ``"head."``, or nothing when it is the network.

    Raises:
        ValueError: when the network has no generated head, or more than one.
    """
    why = "its weights are to be made for each task, so it must end with one Generated head"
    how = "Make it with None for its number of outputs, or append fewstep.networks.Generated()."
    return _only(network, GeneratedHead, why, how)


def memory_head(network: nn.Module) -> str:
    """The prefix of the slots of a network's one :class:`MemoryHead`.

    Raises:
        ValueError: when the network has no such head, or more than one.
    """
    why = "it is to answer by looking at the task's support, so it must end with one MemoryHead"
    return _only(network, MemoryHead, why, "Append one, such as fewstep.networks.Matching().")


def asking_whole(network: nn.Module, like: Tensor) -> dict[str, Tensor]:
    """The slot by which a network that ends with a :class:`JointHead` gives the answers of the support's rows too.

    Empty for one without a head that looks at the support: it can be asked for these rows as for any.

    Raises:
        ValueError: when it has another :class:`MemoryHead`, which would find the rows themselves, or several.
    """
    if not any(isinstance(module, MemoryHead) for module in network.modules()):
        return {}
    why = "rows of the support are to be answered with the query's, so it must end with one JointHead"
    head = _only(network, JointHead, why, "Append one, such as fewstep.networks.Propagating().")
    return {f"{head}whole": like.new_ones(())}


def _only(network: nn.Module, kind: type[TaskHead], why: str, how: str) -> str:
    named = dict(network.named_modules())
    heads = [name for name, module in named.items() if isinstance(module, kind)]
    if len(heads) != 1:
        given = f"{', '.join(heads)} are such heads" if heads else f"found none among ({', '.join(named).strip(', ')})"
        raise ValueError(f"{type(network).__name__}: {why}, but {given}. {how}")
    return f"{heads[0]}." if heads[0] else ""
