"""That types and shapes are checked while tests run: see ``conftest.py``."""

from typing import Any

import pytest
import torch
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import TypeCheckError

from fewstep.core import generator
from fewstep.core.loss import cross_entropy


def test_shapes_that_do_not_agree_are_found() -> None:
    with pytest.raises(TypeCheckError, match="ways"):
        cross_entropy(torch.zeros(2, 3), torch.zeros(2, 4))


def test_types_are_checked_where_no_shape_is_stated() -> None:
    seed: Any = "0"
    with pytest.raises(BeartypeCallHintViolation, match="seed"):
        generator(seed)
