import os
from pathlib import Path

import pytest
import torch
from pages import ROOT

SHARED = ROOT.parent / "shared"


@pytest.fixture(autouse=True)
def _deterministic() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(int(os.environ.get("FEWSTEP_TEST_THREADS", "1")))


@pytest.fixture
def shared() -> Path:
    if not SHARED.is_dir():
        pytest.skip(f"the development folder {SHARED} is not here")
    return SHARED
