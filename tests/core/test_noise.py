"""The randomness of a meta-step: what is drawn, and what the draws may depend on."""

import pytest
import torch

from fewstep.core import generator, noise
from fewstep.core.noise import PIECE, Draws, Mask, Normal, fill

SITES = {"code": Normal((5, 64)), "masks": [Mask((900, 40), 0.3), Mask((700, 40), 0.3), Mask((500, 40), 0.75)]}
TASKS = 25
"""Of which the masks need several streams."""


def test_many_numbers_do_not_depend_on_the_number_of_threads() -> None:
    before, drawn = torch.get_num_threads(), []
    sites = SITES | {"weight": Normal((5, 2 * PIECE // TASKS))}
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            with torch.inference_mode(threads == 2):
                drawn.append(Draws(sites, TASKS, generator(0, 3, "noise"))[:])
    finally:
        torch.set_num_threads(before)
    assert drawn[0].normal.numel() > 2 * PIECE
    for other in drawn[1:]:
        assert torch.equal(other.normal, drawn[0].normal)
        assert torch.equal(other.kept, drawn[0].kept)


@pytest.mark.parametrize("size", [1, 2, 7])
def test_how_a_batch_is_cut_changes_nothing(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some streams fill many tasks, some a part of one. Cut in order, none is read twice."""
    calls: list[str] = []
    for name in ("_draw_normals", "_draw_mask"):
        draw = getattr(noise, name)
        monkeypatch.setattr(noise, name, lambda *args, name=name, draw=draw: (calls.append(name), draw(*args)))
    sites = SITES | {"weight": Normal((5, 2 * PIECE // TASKS)), "wide": Mask((3, 2 * PIECE), 0.5)}
    draws = Draws(sites, TASKS, generator(0, 3, "noise"))
    whole, once = draws[:], sorted(calls)
    calls.clear()
    parts = [draws[first : first + size] for first in range(0, TASKS, size)]
    for expected, tables in zip(whole, zip(*parts, strict=True), strict=True):
        assert torch.equal(torch.cat(tables), expected)
    assert sorted(calls) == once
    for one, expected in zip(draws[20:21], whole, strict=True):  # nor does the order
        assert torch.equal(one, expected[20:21])


def test_masks_keep_as_many_as_their_rate_says_in_every_task_and_no_two_alike() -> None:
    masks = fill(SITES, Draws(SITES, TASKS, generator(0, 0, "noise"))[:])["masks"]
    for site, kept in zip(SITES["masks"], masks, strict=True):
        assert kept.shape == (TASKS, *site.shape)
        deviation = (site.rate * (1 - site.rate) / kept[0].numel()) ** 0.5
        assert kept.flatten(1).double().mean(1).tolist() == pytest.approx([1 - site.rate] * TASKS, abs=5 * deviation)
    rows = masks[0].reshape(-1, 120)
    assert len(rows.unique(dim=0)) == len(rows)


def test_normal_numbers_are_standard_and_no_piece_repeats() -> None:
    drawn = Draws({"weight": Normal((PIECE,))}, 3, generator(0, 0, "noise"))[:].normal
    assert drawn.mean().item() == pytest.approx(0, abs=0.01)
    assert drawn.var().item() == pytest.approx(1, abs=0.02)
    assert torch.corrcoef(drawn).triu(1).abs().max() < 0.02


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_source_gives_the_same_again_only_from_its_beginning(dtype: torch.dtype) -> None:
    source = generator(0, 0, "noise")
    first, second = (Draws(SITES, 2, source, dtype)[:] for _ in range(2))
    again = Draws(SITES, 2, generator(0, 0, "noise"), dtype)[:]
    for one, same, other in zip(first, again, second, strict=True):
        assert torch.equal(one, same)
        assert not torch.equal(one, other)


def test_sites_without_elements_and_no_sites() -> None:
    for sites in ({}, {"kept": Mask((0, 3), 0.5)}, {"code": Normal((0,))}):
        normal, kept = Draws(sites, 2, generator(0, 0, "noise"))[:]
        assert normal.shape == kept.shape == (2, 0)
