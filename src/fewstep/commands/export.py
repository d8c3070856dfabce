"""``fewstep export``: a run as one file to share."""

from __future__ import annotations

from pathlib import Path

import tyro

from fewstep.commands.console import note, point_to


def export(run: tyro.conf.Positional[Path], file: tyro.conf.Positional[Path], licence: str = "") -> None:
    """Write a trained run to one file, with a card beside it that says what it is, how it was tested and its limits.

    The file holds arrays and settings, and no code. ``fewstep predict FILE`` and ``fewstep.load(FILE)`` take it.

    Args:
        run: folder of a trained run.
        file: NAME, written as NAME.fewstep.safetensors and NAME.md, in place of an earlier export.
        licence: under which others may use it, in words.
    """
    from fewstep.data.storage.files import begins, write_atomically
    from fewstep.estimators.card import CARD, model_card
    from fewstep.estimators.load import load
    from fewstep.estimators.sharing import told_by
    from fewstep.experiments.model_file import SUFFIX, model_place

    place = model_place(file)
    name = place.name.removesuffix(SUFFIX)
    card = place.with_name(f"{name}.md")
    if card.exists() and not begins(card, CARD):
        raise ValueError(f"{card} is there, and is no card of a model: choose another name, or move it away.")
    if place.exists():
        note(f"{place} is there, and is replaced")
    written = load(run).save(file, licence=licence)
    opening = ["import fewstep", "", f'model = fewstep.load("{written.name}")']
    write_atomically(card, model_card(told_by(written), opening, name))
    point_to("model", written)
    point_to("card", card)
