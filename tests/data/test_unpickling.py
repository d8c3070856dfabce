"""Every exploit here is a real one: ``pickle.loads`` is seen to fall for it before ``unpickle`` refuses it."""

import contextlib
import copyreg
import os
import pickle
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.f2py.crackfortran as crackfortran
import numpy.testing
import pytest

from fewstep.data.storage.unpickling import unpickle


class Call:
    """Pickles as a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


class Hostile(np.ndarray):
    """Does harm when its state is set."""

    def __setstate__(self, state: Any) -> None:
        Path(state).touch()


def touch(marker: Path) -> str:
    return f"open({str(marker)!r}, 'w')"


def call(*of: Any, protocol: int = 2) -> bytes:
    return pickle.dumps(Call(*of), protocol)


def shell(marker: Path) -> bytes:
    """A call of os.system by one instruction that needs no other."""
    return f"(S'touch {marker}'\nios\nsystem\n".encode()


def text(value: str) -> bytes:
    return b"\x8c" + bytes([len(value)]) + value.encode()


def dotted(marker: Path) -> bytes:
    """From protocol 4 on, a name is followed along its dots: here from an admitted name to ``exec``."""
    name = text("_codecs") + text("encode.__self__.__spec__.__init__.__func__.__builtins__.get") + b"\x93"
    return b"\x80\x04" + name + text("exec") + b"\x85R" + text(touch(marker)) + b"\x85R."


def objects(marker: Path) -> bytes:
    array = np.empty(2, object)
    array[1] = Call(os.system, f"touch {marker}")
    return pickle.dumps(array, 2)


SYSTEM = r"(posix|nt)\.system"
EXPLOITS: dict[str, tuple[str, Callable[[Path], bytes]]] = {
    "reduce": (SYSTEM, lambda m: call(os.system, f"touch {m}")),
    "protocol 0": (SYSTEM, lambda m: call(os.system, f"touch {m}", protocol=0)),
    "protocol 5": (SYSTEM, lambda m: call(os.system, f"touch {m}", protocol=5)),
    "inst": (r"os\.system", lambda m: shell(m) + b"."),
    "obj": (r"os\.system", lambda m: f"(cos\nsystem\nS'touch {m}'\no.".encode()),
    "subprocess": (r"subprocess\.Popen", lambda m: call(subprocess.Popen, ["touch", str(m)], protocol=4)),
    "eval": (r"__builtin__\.eval", lambda m: call(eval, touch(m))),
    "exec": (r"builtins\.exec", lambda m: call(exec, touch(m), protocol=4)),
    "import": (r"__builtin__\.__import__", lambda m: b"c__builtin__\n__import__\n(S'os'\ntR0" + shell(m) + b"."),
    "getattr": (
        r"builtins\.getattr",
        lambda m: f"cbuiltins\ngetattr\n(cos\nsystem\nS'__call__'\ntR(S'touch {m}'\ntR.".encode(),
    ),
    "attrgetter": (
        r"operator\.attrgetter",
        lambda m: f"coperator\nattrgetter\n(S'__call__'\ntR(cos\nsystem\ntR(S'touch {m}'\ntR.".encode(),
    ),
    "numpy evaluates": (r"numpy\.f2py.*getlincoef", lambda m: call(crackfortran.getlincoef, touch(m), {"x": 1})),
    "numpy executes": (r"numpy\.testing.*runstring", lambda m: call(numpy.testing.runstring, touch(m), {})),
    "dotted": (r"_codecs\.encode\.__self__", dotted),
    "nested": (SYSTEM, lambda m: pickle.dumps({"a": [1, {"b": (2, Call(os.system, f"touch {m}"))}]})),
    "a key": (SYSTEM, lambda m: pickle.dumps({Call(os.system, f"touch {m}"): 1})),
    "subtype": (
        rf"{__name__.rpartition('.')[2]}\.Hostile",
        lambda m: f"cnumpy.core.multiarray\n_reconstruct\n(c{__name__}\nHostile\n(I0\ntS'b'\ntRS'{m}'\nb.".encode(),
    ),
    "copyreg": (
        r"copyreg\._reconstructor",
        lambda m: (
            f"ccopyreg\n_reconstructor\n(csubprocess\nPopen\ncsubprocess\nPopen\n(S'touch'\nS'{m}'\nltR.".encode()
        ),
    ),
    "array of objects": (SYSTEM, objects),
}


@pytest.mark.parametrize("exploit", EXPLOITS)
def test_exploits_are_refused_before_anything_runs(exploit: str, tmp_path: Path) -> None:
    asked, make = EXPLOITS[exploit]
    marker = tmp_path / "marker"
    path = tmp_path / "file.pkl"
    path.write_bytes(make(marker))
    with pytest.raises(ValueError, match=rf"file\.pkl asks for {asked}.*save its arrays with numpy.savez"):
        unpickle(path)
    assert not marker.exists()
    with contextlib.suppress(Exception):  # some fail once the harm is done
        result = pickle.loads(path.read_bytes())
        if isinstance(result, subprocess.Popen):
            result.wait()
    assert marker.exists(), "this is no exploit"


ARRAY = pickle.dumps(np.arange(3), 2)
REBUILT = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
OBJECTS = b"(cnumpy\ndtype\n(S'O8'\nI0\nI1\ntR"
INT8 = b"(cnumpy\ndtype\n(S'i1'\nI0\nI1\ntR"


REFUSED = {
    "array of another type": (b"cnumpy\n_reconstruct\n.", "asks for numpy._reconstruct"),
    "array of type x": (b"cnumpy.core.multiarray\n_reconstruct\n(S'x'\n(I0\ntS'b'\ntR.", "array of type b'x'"),
    "reconstruct of dtype": (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\ndtype\n(I0\ntS'b'\ntR.",
        "array of type numpy.dtype",
    ),
    "empty array of a size": (b"cnumpy\nndarray\n((L1000000000000L\nttR.", "calls numpy.ndarray"),
    "shape without bytes": (REBUILT + b"(I1\n(L1000000000000L\nt" + INT8[1:] + b"I00\nS'ab'\ntb.", "with 2 bytes"),
    "many zeros": (b"c__builtin__\nbytes\n(L1000000000000L\ntR.", "builtins.bytes with an argument"),
    "many zeros, changeable": (b"c__builtin__\nbytearray\n(L1000000000000L\ntR.", "asks for __builtin__.bytearray"),
    "a memo of 2**31": (b"\x80\x02]r\xff\xff\xff\x7f.", "numbers its 2th part 2147483647"),
    "announced bytes": (b"\x80\x04\x8e\x00\x00\x00\x00\x00\x01\x00\x00.", "damaged"),
    "another codec": (b"c_codecs\nencode\n(Vabc\nVzip\ntR.", "_codecs.encode with 'zip'"),
    "pointers": (REBUILT + b"(I1\n(I1\nt" + OBJECTS[1:] + b"I00\nS'abcdefgh'\ntb.", "objects without a list"),
    "pointers in a buffer": (
        b"cnumpy.core.numeric\n_frombuffer\n(S'abcdefgh'\ncnumpy\ndtype\n(S'O8'\nI0\nI1\ntR(I1\ntS'C'\ntR.",
        "objects without a list",
    ),
    "a pointer": (
        b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(S'O8'\nI0\nI1\ntRS'abcdefgh'\ntR.",
        "objects without a list",
    ),
    "more objects than there are": (
        REBUILT + b"(I1\n(I9\nt" + OBJECTS[1:] + b"I00\n(lI1\natb.",
        "without a list of as many",
    ),
    "objects among numbers": (
        REBUILT + b"(I1\n(I1\nt" + INT8[1:] + b"I00\n(lI1\natb.",
        "in an array of something else",
    ),
    "an array of itself": (REBUILT + b"p1\n(I1\n(I1\nt" + OBJECTS[1:] + b"I00\n(lg1\natb.", "contains itself"),
    "a name in an array": (
        REBUILT + b"(I1\n(I1\nt" + OBJECTS[1:] + b"I00\n(lcnumpy\nndarray\natb.",
        "holds numpy.ndarray",
    ),
    "records": (pickle.dumps(np.zeros(2, "i4,f4")), "array of dtype 'V8'"),
    "dtype with fields": (INT8 + b"(I3\nS'<'\nN(S'a'\nt}I1\nI1\nI0\ntb.", "array of records"),
    "times": (pickle.dumps(np.zeros(2, "M8[s]")), "array of dtype 'M8'"),
    "changing what is admitted": (b"c_codecs\nencode\n}S'x'\nI1\nsb.", "tries to change _codecs.encode"),
    "changing it by slots": (b"\x80\x02c_codecs\nencode\nN}X\x04\x00\x00\x00madeK\x01s\x86b.", "tries to change"),
    "persistent id": (b"Psecret\n.", "outside of itself .PERSID 'secret'"),
    "extension code": (b"\x80\x02\x82\x07.", "outside of itself .EXT1 7"),
    "a name": (b"cnumpy\nndarray\n.", "holds numpy.ndarray"),
    "a dtype": (pickle.dumps(np.dtype("i4"), 2), "holds a numpy.dtype"),
    "a complex number": (pickle.dumps(1j), "asks for builtins.complex"),
    "a byte array": (b"\x80\x05\x96\x01\0\0\0\0\0\0\0a.", "holds a bytearray"),
    "a list in itself": (b"]p1\ng1\na.", "contains itself"),
    "a list as a key": (b"}]I1\ns.", "damaged"),
    "an array as a key": (b"}" + ARRAY[2:-1] + b"I1\ns.", "has a key of type ndarray"),
    "nothing": (b"", "damaged or is no pickle"),
    "a picture": (b"\xff\xd8\xff\xe0\0\x10JFIF", "damaged or is no pickle"),
    "text": (b"Not Found", "damaged or is no pickle"),
    "half of it": (ARRAY[: len(ARRAY) // 2], "damaged or is no pickle"),
    "cut by one byte": (ARRAY[:-1], "damaged or is no pickle"),
    "deep": (b"]" * 5000 + b"a" * 4999 + b".", "nested too deeply"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused(what: str) -> None:
    content, told = REFUSED[what]
    with pytest.raises(ValueError, match=rf"the pickle .*{told}"):
        unpickle(content)


def test_no_cached_extension_code_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The C unpickler answers these from a table of the process, without asking for a name."""
    copyreg.add_extension("os", "getcwd", 240)
    try:
        content = b"\x80\x02\x82\xf0)R."
        assert pickle.loads(content) == os.getcwd()  # also puts it into the table
        with pytest.raises(ValueError, match="outside of itself"):
            unpickle(content)
    finally:
        copyreg.remove_extension("os", "getcwd", 240)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no file .*none\.pkl"):
        unpickle(tmp_path / "none.pkl")
    with pytest.raises(FileNotFoundError, match="there is no file"):
        unpickle(tmp_path)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_come_back(protocol: int) -> None:
    arrays = {
        "view": np.arange(6.0).reshape(2, 3).T,
        "strided": np.arange(8, dtype=np.int16)[::-2],
        "big": np.array([1, 2], ">i4"),
        "text": np.array(["ü", "bc"]),
        "bytes": np.array([b"x", b"yy"]),
        "none": np.zeros((0, 3), np.float32),
        "point": np.array(3),
        "truth": np.array([True, False]),
    }
    plain = [1, 2.5, (True, None), "ü", b"", b"\xff\0", {1, "a"}, frozenset("b"), {"k": [b"v"]}, 2**70, []]
    scalars = {"a": np.float32(2.5), "b": np.str_("hü"), "c": np.int64(-4)}
    same = [0]
    objects = np.array([["a", None, 2.5], [b"c", "é", ("d",)]], object)
    vectors = np.empty(2, object)
    vectors[:] = [np.arange(2.0), np.float32(1)]
    read = unpickle(pickle.dumps([arrays, plain, scalars, same, same, objects, objects.T, vectors], protocol))
    for i, expected in enumerate((objects, objects.T), 5):
        assert (read[i].dtype, read[i].tolist()) == (np.dtype(object), expected.tolist())
    assert read[7][0].tolist() == [0, 1]
    assert type(read[7][1]) is float
    for name, array in arrays.items():
        got = read[0][name]
        assert (type(got), got.dtype, got.shape) == (np.ndarray, array.dtype, array.shape)
        assert np.array_equal(got, array)
    assert read[1] == plain
    assert read[2] == {"a": 2.5, "b": "hü", "c": -4}
    assert read[3] is read[4]


@pytest.mark.parametrize("encoding", ["bytes", "latin1"])
def test_python_2_files_are_read(encoding: str, shared: Path) -> None:
    files = sorted((shared / "data" / "py2_sample").rglob("*.pkl"))
    assert len(files) == 3
    for path in files:
        with path.open("rb") as file:
            trusted = pickle.load(file, encoding=encoding)
        read = unpickle(path, encoding=encoding)
        assert read.keys() == trusted.keys()
        assert type(next(iter(read))) is (bytes if encoding == "bytes" else str)
        for name, array in trusted.items():
            assert read[name].dtype == array.dtype
            assert np.array_equal(read[name], array)
