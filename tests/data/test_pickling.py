"""DeepMind's layout is for DeepMind's code: Python 3.7 with NumPy 1.18, or Python 2."""

import pickle
import pickletools
from pathlib import Path

import numpy as np
import pytest

from fewstep.data.features.datasets import convert
from fewstep.data.storage.pickling import pickled_arrays
from fewstep.data.storage.unpickling import unpickle

EVERY_NUMPY = {
    "numpy.core.multiarray _reconstruct",
    "numpy ndarray",
    "numpy dtype",
    "_codecs encode",
    "__builtin__ bytes",
}
NEWER_NAME = "cnumpy._core.multiarray\n_reconstruct\n"


def asked(content: bytes) -> tuple[set[str], set[str]]:
    """The names that a pickle asks for, and its opcodes."""
    found = list(pickletools.genops(content))
    assert (found[0][0].name, found[0][1]) == ("PROTO", 2)
    return {str(argument) for opcode, argument, _ in found if opcode.name == "GLOBAL"}, {o.name for o, _, _ in found}


def test_arrays_ask_for_no_name_of_numpy_2_and_come_back() -> None:
    arrays = {
        "embeddings": np.arange(12, dtype=np.float16).reshape(3, 4),
        "none": np.zeros((0, 3)),
        "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        NEWER_NAME: np.array([NEWER_NAME, "é"]),  # text that only looks like an instruction stays as it is
    }
    content = pickled_arrays(arrays)
    names, opcodes = asked(content)
    assert names <= EVERY_NUMPY
    assert not opcodes & {"STACK_GLOBAL", "SHORT_BINUNICODE", "BINBYTES", "FRAME", "MEMOIZE"}, "those are newer"
    for read in (pickle.loads(content, encoding="latin1"), unpickle(content)):
        assert list(read) == list(arrays)
        for name, array in arrays.items():
            assert read[name].dtype == array.dtype
            np.testing.assert_array_equal(read[name], array)


@pytest.mark.parametrize("target", ["pickles", "one.pkl"])
def test_converted_features_are_read_as_the_authors_loader_does(target: str, tmp_path: Path) -> None:
    splits = ["train"] * 4 if target.endswith(".pkl") else ["train", "train", "val", "test"]
    labels = np.array(["n01", "a-b_c", "50% é", "n04"])
    np.savez(tmp_path / "f.npz", features=np.eye(4, dtype=np.float32), labels=labels, split=np.array(splits))
    path = convert(tmp_path / "f.npz", tmp_path / target)
    seen = []
    for file in [path] if path.is_file() else sorted(path.iterdir()):
        assert asked(file.read_bytes())[0] <= EVERY_NUMPY
        record = pickle.loads(file.read_bytes(), encoding="latin1")
        for key in record["keys"]:  # data.py of google-deepmind/leo
            _, class_label_name, image_file = key.split("-")
            assert class_label_name == image_file.split("_")[0]
            seen.append(class_label_name)
    assert len(seen) == len(set(seen)) == 4
