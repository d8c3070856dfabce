"""Latent codes before and after adaptation: their numbers, how well they tell classes apart, and maps of them."""

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from fewstep.core import Batch, Method, Point
from fewstep.evaluation.analysis.passage import Coordinates, passed
from fewstep.evaluation.arrays import slices, take, to_numpy


def latent_codes(
    method: Method, support: Batch
) -> tuple[Float[np.ndarray, "tasks codes numbers"], Float[np.ndarray, "tasks codes numbers"]]:
    """Each task's codes z, and z' after the steps that move them; no sampling, as in evaluation.

    A class of LEO has one code, however many shots there are, see :class:`Coordinates`; a start that generates a whole
    network has one a task. Of a method without codes these are what its first steps move, one vector a task.

    Args:
        method: as it is to adapt.
        support: a task axis leads every tensor.

    Example:
        >>> from fewstep.evaluation.analysis import latent_codes
        >>> before, after = latent_codes(leo(features=8, latents=3), clusters.support)
        >>> before.shape, after.shape  # of four tasks with three classes
        ((4, 3, 3), (4, 3, 3))
    """
    parts = []
    for some in slices(len(support.weight), 100):
        points = passed(method, take(support, some)).first
        parts.append((_codes(points[0]), _codes(points[-1])))
    before, after = (np.concatenate(of_all) for of_all in zip(*parts, strict=True))
    return before, after


def _codes(point: Point) -> Float[np.ndarray, "tasks codes numbers"]:
    of_tasks = (Coordinates(take(point, i)) for i in range(len(next(iter(point.value.values())))))
    return np.stack([to_numpy(_rows(one)) for one in of_tasks])


def _rows(of_task: Coordinates) -> Float[Tensor, "codes numbers"]:
    """A row for each class that has a code of its own."""
    code = of_task.values.get("code")
    return of_task.vector[None] if code is None or code.ndim != 2 else code


def separation(
    codes: Float[np.ndarray, "tasks codes numbers"], classes: Int[np.ndarray, "tasks codes"]
) -> Float[np.ndarray, " tasks"]:
    """How well codes tell classes apart: the silhouette ``(b − a) / max(a, b)`` of a code, averaged over a task's.

    a is its mean distance from the other codes of its class, b that from the codes of the nearest other class, among
    the codes of all tasks (Rousseeuw 1987). 1: classes are far apart; 0: they overlap; below: they lie among others. It
    does not depend on the scale of the codes.

    Args:
        codes: before or after adaptation.
        classes: of each code, any numbers that tell them apart; two at least.

    Returns:
        A number for each task, of which :func:`~fewstep.evaluation.interval` makes a mean with its interval, and
        :func:`~fewstep.evaluation.paired` a difference. Tasks share the codes that they are compared with.

    Example:
        >>> from fewstep.evaluation.analysis import separation
        >>> near, far = np.zeros((4, 1, 2)), np.ones((4, 1, 2))  # two points, far apart, in all of four tasks
        >>> separation(np.concatenate([near, far], 1), np.array([[0, 1]] * 4)).tolist()
        [1.0, 1.0, 1.0, 1.0]
    """
    from sklearn.metrics import silhouette_samples  # here, for importing it takes long

    found = silhouette_samples(codes.reshape(-1, codes.shape[-1]), classes.ravel())
    return np.asarray(found.reshape(classes.shape).mean(1), np.float64)


def principal_components(
    points: Float[np.ndarray, "points numbers"],
) -> tuple[Float[np.ndarray, "points 2"], Float[np.ndarray, "2"]]:
    """Points on the two axes along which they differ most, and the share of their variance along each."""
    from sklearn.decomposition import PCA  # here, for importing it takes long

    found = PCA(2, svd_solver="full").fit(points)
    return np.asarray(found.transform(points)), np.asarray(found.explained_variance_ratio_)


def tsne(
    points: Float[np.ndarray, "points numbers"], *, perplexity: float = 30.0, seed: int = 0
) -> Float[np.ndarray, "points 2"]:
    """A map on which near points stay near (van der Maaten and Hinton 2008), by scikit-learn's Barnes-Hut tree.

    It begins at the principal components. Distances between groups on it, and their sizes, mean little.

    Args:
        points: a thousand take seconds, ten thousand a minute or two.
        perplexity: about how many neighbours of a point count; a third of all points at most.
        seed: of what is random in it.
    """
    from sklearn.manifold import TSNE  # here, for importing it takes long

    few = min(perplexity, (len(points) - 1) / 3)
    return np.asarray(TSNE(perplexity=few, init="pca", random_state=seed).fit_transform(points), np.float64)
