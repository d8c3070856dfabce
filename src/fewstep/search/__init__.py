"""Random search over a recipe's settings, in one process or many, that a kill does not undo."""

from fewstep.search.found import Found, Row
from fewstep.search.searching import Status, search

__all__ = ["Found", "Row", "Status", "search"]
