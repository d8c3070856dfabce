"""Embedding a dataset once, where tasks would embed its rows again and again."""

from dataclasses import replace

import torch

from fewstep.core import Learner, Method
from fewstep.core.network.heads import GeneratedHead
from fewstep.core.network.operations import is_plain
from fewstep.core.network.row_weights import normalises
from fewstep.data import Dataset, EpisodeSampler
from fewstep.data.source import TaskSource


def once_embedded(method: Method, source: TaskSource, tasks: int) -> tuple[Method, TaskSource]:
    """The same method without its embedding, and its tasks on embedded rows; or both as they are.

    That is possible where rows are embedded one by one and nothing but a generated head comes after, and it pays where
    the tasks have more rows than the dataset. Predictions are the same up to rounding.

    Args:
        method: in evaluation mode.
        source: of tasks.
        tasks: how many of them will be asked for.
    """
    learner = method.learner
    embedding = learner.embedding
    if embedding is None or not isinstance(learner.network, GeneratedHead) or not isinstance(source, EpisodeSampler):
        return method, source
    dataset = source.dataset
    per_class = dataset.sizes.mean() if source.queries is None else source.shots + source.queries
    if tasks * source.ways * per_class < len(dataset):
        return method, source
    if not is_plain(embedding) or any(map(normalises, embedding.modules())):
        return method, source
    with torch.no_grad():
        rows = [
            embedding(dataset.gather(some, dtype=source.dtype, device=source.device)).cpu() for some in dataset.blocks()
        ]
    embedded = Dataset.from_sorted(
        torch.cat(rows), dataset.offsets, dataset.class_names, name=dataset.name, split=dataset.split
    )
    bare = Learner(learner.network, learner.start, learner.stages, loss=learner.loss)
    return replace(method, learner=bare, regularisers=(), decays=()), replace(source, dataset=embedded)
