import numpy as np
import pytest

from fewstep.data import omniglot_originals


@pytest.fixture(scope="session")
def originals() -> tuple[np.ndarray, list[str]]:
    """Omniglot at its original size, unpacked once."""
    return omniglot_originals()
