"""Random search over a recipe's settings, in one process or many, that a kill does not undo."""

from fewstep.experiments.search.procedure import Status, search
from fewstep.experiments.search.result import SearchResult, Trial

__all__ = ["SearchResult", "Status", "Trial", "search"]
