"""``fewstep export``: a run as one file to share."""

from __future__ import annotations

from pathlib import Path

import tyro

from fewstep.commands.console import point_to


def export(run: tyro.conf.Positional[Path], file: tyro.conf.Positional[Path], licence: str = "") -> None:
    """Write a trained run to one file, with a card beside it that says what it is, how it was tested and its limits.

    The file holds arrays and settings, and no code. ``fewstep predict FILE`` and ``fewstep.load(FILE)`` take it.

    Args:
        run: folder of a trained run.
        file: NAME, written as NAME.fewstep.safetensors and NAME.md.
        licence: under which others may use it, in words.
    """
    from fewstep.data.storage.files import write_atomically
    from fewstep.estimators.card import model_card
    from fewstep.estimators.load import load
    from fewstep.estimators.sharing import told_by
    from fewstep.experiments.model_file import SUFFIX

    written = load(run).save(file, licence=licence)
    name = written.name.removesuffix(SUFFIX)
    card = written.with_name(f"{name}.md")
    opening = ["import fewstep", "", f'model = fewstep.load("{written.name}")']
    write_atomically(card, model_card(told_by(written), opening, name))
    point_to("model", written)
    point_to("card", card)
