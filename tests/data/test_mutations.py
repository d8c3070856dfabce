"""Two hundred damaged files of those that ``campaigns/mutations.py`` makes: refused, or read as they were."""

from pathlib import Path

import pytest
from campaigns.mutations import campaign

COUNTS = {
    "npz": 40,
    "compressed npz": 20,
    "npy": 30,
    "safetensors": 20,
    "pickle": 20,
    "csv": 20,
    "json": 10,
    "model": 15,
    "extractor": 10,
    "checkpoint": 10,
    "run": 5,
}


@pytest.mark.parametrize("name", COUNTS)
def test_a_damaged_file_is_refused_by_name_or_reads_as_it_was(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEWSTEP_CACHE", str(tmp_path / "cache"))
    (tmp_path / "files").mkdir()
    counts, faults = campaign(name, range(COUNTS[name]), tmp_path / "files")
    assert not faults
    assert counts["refused"] > COUNTS[name] // 2
