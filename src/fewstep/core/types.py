"""The vocabulary of the library: tasks, points and estimates, all of them plain tuples of tensors.

Everything here is a pytree of tensors, because these values cross ``torch.func.vmap`` and ``torch.compile``: a
closure could not leave the map, a tensor can. The functions of ``core`` see one task; a batch of tasks is the same
tuple with a leading task axis on every tensor.
"""

from typing import Literal, NamedTuple, TypeAlias, get_args

from jaxtyping import Float, Int, Num
from torch import Tensor

Params: TypeAlias = dict[str, Tensor]
"""Named tensors, keyed as ``torch.nn.Module.named_parameters`` names them."""

Penalties: TypeAlias = dict[str, Tensor]
"""Named scalars, each already multiplied by its weight, that an estimator adds to the query loss."""


Statistics: TypeAlias = Literal["query", "support", "joined", "running"]
"""What batch normalisation of a query takes its statistics from: all rows of the ``"query"`` (*transductive*), the
``"support"`` alone, the support ``"joined"`` by that one query row (Reptile's inductive evaluation), or ``"running"``
statistics of the support along adaptation (Meta-LSTM's)."""


def require_statistics(given: str, caller: str) -> None:
    """Refuse what is none of :data:`Statistics`.

    Raises:
        ValueError: naming all of them.
    """
    if given not in get_args(Statistics):
        known = ", ".join(map(repr, get_args(Statistics)))
        raise ValueError(f"{caller}: statistics is one of {known}, got {given!r}.")


class Batch(NamedTuple):
    """Labelled rows.

    Attributes:
        x: inputs, ``[rows, *features]``: floating-point numbers, or int64 for tokens.
        y: targets, ``[rows, outputs]``. For classification the rows are one-hot, so the number of ways is a shape and
            never a value that has to be read back from a tensor.
        weight: ``[rows]``, 1 for a real row and 0 for padding (ragged shots).

    Example:
        >>> support = Batch(torch.tensor([[0.2], [1.9], [2.1]]), torch.eye(2)[[0, 1, 1]], torch.ones(3))
        >>> support.y.argmax(1)  # three rows, of two classes
        tensor([0, 1, 1])
    """

    x: Num[Tensor, "*tasks_rows_features"]
    y: Float[Tensor, "*tasks_rows outputs"]
    weight: Float[Tensor, "*tasks_rows"]


class Task(NamedTuple):
    """One few-shot problem: adapt on ``support``, be judged on ``query``. Also called an episode.

    Example:
        >>> sines.support.x.shape, sines.query.x.shape  # four tasks: 10 points to adapt to, 10 to be judged on
        (torch.Size([4, 10, 1]), torch.Size([4, 10, 1]))
        >>> first = Task(*(Batch(*(tensor[0] for tensor in batch)) for batch in sines))
        >>> first.support.x.shape
        torch.Size([10, 1])
    """

    support: Batch
    query: Batch


class KnownTask(NamedTuple):
    """A task of classes that meta-training knows by number, for a start that holds something of each of them.

    Attributes:
        support: as of a :class:`Task`.
        query: likewise; or with rows of other known classes as well. Its labels then have a column for each way, and
            after these one for each known class.
        classes: ``[ways]``, which classes of meta-training its ways are, counted from 0.

    Example:
        >>> from fewstep.data import KnownTasks
        >>> sampler = EpisodeSampler(classes, ways=3, shots=2, queries=5, tasks=4, seed=0)
        >>> KnownTasks(sampler).batch(0).classes.shape  # of four tasks
        torch.Size([4, 3])
    """

    support: Batch
    query: Batch
    classes: Int[Tensor, "*tasks ways"]


AnyTask: TypeAlias = Task | KnownTask


class Point(NamedTuple):
    """Where the adaptation to a task stands.

    Attributes:
        value: what the inner loop moves: weights (MAML), or latent codes (LEO).
        context: tensors that stay fixed during adaptation and that decoding ``value`` into weights needs.

    Example:
        >>> adapted = maml(mlp((1, 40, 1)), rate=0.01, loss=regression()).adapt(sines.support)
        >>> {name: tuple(weight.shape) for name, weight in adapted.value.items()}  # of each of the four tasks
        {'0.weight': (4, 40, 1), '0.bias': (4, 40), '2.weight': (4, 1, 40), '2.bias': (4, 1)}
    """

    value: Params
    context: Params


class Estimate(NamedTuple):
    """What the outer loop learns from one task: an objective to differentiate, and metrics to log.

    Attributes:
        objective: a scalar whose ordinary autograd gradient *is* the meta-gradient estimate. Its value need not be a
            loss, so it is never logged.
        metrics: named scalars to log.

    Example:
        >>> estimate = maml(line, rate=0.25, loss=regression()).objective(parabola, None)
        >>> estimate.objective.backward()
        >>> line.weight.grad, estimate.metrics["loss"]
        (tensor([[0.5000]]), tensor([0.2500]))
    """

    objective: Float[Tensor, "*tasks"]
    metrics: dict[str, Tensor]
