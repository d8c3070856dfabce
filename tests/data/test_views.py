import inspect

import pytest
import torch

from fewstep.data.images.crops import views


@pytest.mark.parametrize("leading", [(), (2,), (2, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_views_are_slices(leading: tuple[int, ...], dtype: torch.dtype) -> None:
    x = torch.randint(256, (*leading, 3, 7, 10), generator=torch.Generator().manual_seed(0)).to(dtype)
    if len(leading) == 1:
        x = x.contiguous(memory_format=torch.channels_last)
    centre = x[..., 1:5, 3:7]
    five = [x[..., :4, :4], x[..., :4, -4:], x[..., -4:, :4], x[..., -4:, -4:], centre]
    assert torch.equal(views(x, 4, "center"), centre[None])
    ten = views(x, 4, "multiview")
    assert torch.equal(ten, torch.stack(five + [view.flip(-1) for view in five]))
    assert ten.dtype == dtype
    assert ten.is_contiguous()
    assert views(x, 4, "center").is_contiguous()


def test_views_of_the_whole_image() -> None:
    x = torch.rand(2, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    whole = views(x, 5, "center")
    assert torch.equal(whole[0], x)
    whole.zero_()
    assert x.any(), "a view has pixels of its own"
    assert torch.equal(views(x, 5, "multiview"), torch.stack([x] * 5 + [x.flip(-1)] * 5))


def test_what_has_no_views_is_refused() -> None:
    for side in (0, 6):
        with pytest.raises(ValueError, match=f"side must be from 1 to 5 for images of 5 × 7 pixels, got {side}"):
            views(torch.zeros(1, 3, 5, 7), side, "center")
    with pytest.raises(ValueError, match="which must be 'center' or 'multiview', not 'centre'"):
        inspect.unwrap(views)(torch.zeros(1, 3, 5, 7), 3, "centre")  # the tests' type checker would be first
