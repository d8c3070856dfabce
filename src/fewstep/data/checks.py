"""Checks of arguments that are made in several places."""

from collections.abc import Sequence


def check_count(name: str, count: int) -> None:
    """Refuse a count below one.

    Raises:
        ValueError: if ``count`` is not positive.
    """
    if count < 1:
        raise ValueError(f"{name} must be at least 1, got {count}")


def check_choice(name: str, given: str, known: Sequence[str]) -> None:
    """Refuse a word that is none of those that are known.

    Raises:
        ValueError: listing them.
    """
    if given not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, not {given!r}")
