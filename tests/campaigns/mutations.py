"""Damaged files of every kind that fewstep reads: thousands of mutations each, and what reading them came to.

    python tests/campaigns/mutations.py [--mutations 10000] [--kinds npz run …] [--seed 0] [--out mutations.json]

A valid file is changed (bits flipped, bytes cut out, put in or overwritten, blocks swapped, numbers of its header
changed) and read. That must come to one of

- ``refused``: a ``ValueError`` or ``OSError`` of one line that names the file;
- ``same``: the values of the original, where what was changed says nothing;
- ``other``: other values. That is a fault where a format has a checksum or a digest (``knows``), and cannot be avoided
  where it has none: a flipped bit of a raw array is another number. It is counted.

Anything else is a fault: another error, more than ``SECONDS``, or more than ``MEMORY`` beyond what the process has.
Faults are told by kind, seed and error, by which they are made again; no damaged file is kept.
"""

import argparse
import gc
import hashlib
import inspect
import json
import multiprocessing
import random
import re
import resource
import signal
import struct
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import fewstep
from fewstep.data.features.datasets import convert
from fewstep.data.features.formats import parts_of, rows_in, source_of
from fewstep.data.storage.tensors import read_tensors
from fewstep.estimators.sharing import read
from fewstep.experiments.begun import ELSEWHERE
from fewstep.experiments.folder import stored_config
from fewstep.experiments.run import Run
from fewstep.recipes import RECIPES, dotted
from fewstep.training.checkpoint import read_state
from fewstep.training.pretraining import Architecture, FeatureExtractor, Standardised

SECONDS, MEMORY = 20, 2**30
TOGETHER = 250
"""Mutations of a process, so that one that dies takes no more with it."""


# -- mutations ---------------------------------------------------------------------------------------------------------


def mutated(content: bytes, source: random.Random) -> bytes:
    """Changed in one to three places; never the same bytes."""
    changed = bytearray(content)
    for _ in range(source.choice((1, 1, 1, 2, 3))):
        source.choice(_WAYS)(changed, source)
    return bytes(changed) if changed != content else mutated(content, source)


def _place(changed: bytearray, source: random.Random) -> int:
    """Anywhere; half of the time near the beginning or the end, where headers and directories are."""
    end = max(1, len(changed))
    return source.choice(
        (
            source.randrange(end),
            source.randrange(end),
            source.randrange(min(end, 200)),
            max(0, end - 1 - source.randrange(min(end, 200))),
        )
    )


def _flip(changed: bytearray, source: random.Random) -> None:
    for _ in range(source.choice((1, 1, 2, 8))):
        if changed:
            changed[_place(changed, source)] ^= 1 << source.randrange(8)


def _cut(changed: bytearray, source: random.Random) -> None:
    start = _place(changed, source)
    del changed[start : start + source.choice((1, 2, 8, 64, len(changed)))]


def _insert(changed: bytearray, source: random.Random) -> None:
    start = _place(changed, source)
    changed[start:start] = source.randbytes(source.choice((1, 2, 4, 32)))


def _overwrite(changed: bytearray, source: random.Random) -> None:
    start, length = _place(changed, source), source.choice((1, 4, 8, 64))
    changed[start : start + length] = source.choice((bytes(length), b"\xff" * length, source.randbytes(length)))


def _swap(changed: bytearray, source: random.Random) -> None:
    length = source.choice((1, 4, 16, 64))
    one, other = sorted((_place(changed, source), _place(changed, source)))
    if one + length <= other:
        changed[one : one + length], changed[other : other + length] = (
            changed[other : other + length],
            changed[one : one + length],
        )


def _number(changed: bytearray, source: random.Random) -> None:
    """Another number where digits stand, or where some bytes are a number."""
    digits = [found.span() for found in re.finditer(rb"\d+", bytes(changed[:4000]))]
    value = source.choice((0, 1, 7, -1, 255, 2**31 - 1, 2**40, source.randrange(1000)))
    if digits and source.random() < 0.6:
        start, end = source.choice(digits)
        changed[start:end] = str(value).encode()
    elif len(changed) > 8:
        start, kind = source.randrange(min(len(changed), 400) - 7), source.choice(("<H", "<I", "<Q"))
        size = struct.calcsize(kind)
        changed[start : start + size] = struct.pack(kind, value % 2 ** (8 * size))


_WAYS: tuple[Callable[[bytearray, random.Random], None], ...] = (
    _flip,
    _flip,
    _cut,
    _insert,
    _overwrite,
    _swap,
    _number,
)


# -- kinds of files ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        make: writes valid files into a folder; those that are to be damaged.
        read: what they say, to be compared.
        knows: whether the format can tell other values from those that were written.
        words: that an error may have instead of the file's name, such as what the file names.
    """

    make: Callable[[Path], list[Path]]
    read: Callable[[Path], Any]
    knows: bool
    words: tuple[str, ...] = ()


def rows() -> dict[str, np.ndarray]:
    source = np.random.default_rng(0)
    labels = np.repeat([f"class {i}" for i in range(9)], 4)
    split = np.repeat(["train", "val", "test"], 12)
    keys = np.array([f"{i}-{label}-x" for i, label in enumerate(labels)])
    return {"features": source.normal(size=(36, 6)).astype(np.float32), "labels": labels, "split": split, "keys": keys}


def _npz(folder: Path) -> list[Path]:
    np.savez(folder / "features.npz", **rows())
    return [folder / "features.npz"]


def _compressed(folder: Path) -> list[Path]:
    np.savez_compressed(folder / "features.npz", **rows())
    return [folder / "features.npz"]


def _converted(name: str) -> Callable[[Path], list[Path]]:
    def make(folder: Path) -> list[Path]:
        (path,) = _npz(folder)
        convert(path, folder / name)
        path.unlink()
        return sorted(path for path in folder.rglob("*") if path.is_file())

    return make


def _csv(folder: Path) -> list[Path]:
    data = rows()
    head = ",".join([*(f"f{i}" for i in range(6)), "label", "split"])
    lines = [
        ",".join([*map(repr, map(float, row)), label, split])
        for row, label, split in zip(data["features"], data["labels"], data["split"], strict=True)
    ]
    (folder / "features.csv").write_text("\n".join([head, *lines]) + "\n")
    return [folder / "features.csv"]


def _features(path: Path) -> Any:
    """All that training takes of them, and all that a prediction does."""
    found = []
    for split, part in parts_of(source_of(path)).items():
        blocks = b"".join(rows.numpy().tobytes() for rows in part.finite_blocks(str(path)))
        keys = [] if part.ordered_keys is None else part.ordered_keys.tolist()
        found.append((split, part.names, part.sizes, hashlib.sha256(blocks).hexdigest(), keys))
    x, labels = rows_in(path) if path.is_file() and path.suffix != ".safetensors" else (np.zeros(0), None)
    return found, x.dtype.str, x.shape, x.tobytes(), None if labels is None else labels.tolist()


def _short() -> Any:
    config = RECIPES["maml-sinusoid"]()
    short = replace(config.training, steps=2, validate_every=1, validation_tasks=2, compile="off", tasks=2)
    return replace(config, training=short, testing=replace(config.testing, tasks=2, shots=(), steps=()), device="cpu")


def _run(folder: Path) -> list[Path]:
    """A run on features, that has ended."""
    data = folder / "data"
    data.mkdir()
    (path,) = _npz(data)
    config = RECIPES["leo-features-1shot"]()
    training = replace(config.training, steps=2, validate_every=1, validation_tasks=2, compile="off", tasks=2)
    own = replace(config.data, path=str(path), ways=3, queries=1)
    testing = replace(config.testing, tasks=2, shots=(), steps=(), queries=1)
    config = replace(config, data=own, training=training, testing=testing, device="cpu", threads=1)
    Run.create(config, folder / "run").train()
    names = (
        "config.json",
        "problem.json",
        "best.safetensors",
        "last.safetensors",
        "previous.safetensors",
        "metrics.csv",
    )
    return [*(folder / "run" / name for name in names), path]


def _as_run(path: Path) -> Any:
    """What is tested, what training would go on from, and what predictions are made with."""
    folder = path / "run"
    run = Run.open(folder)
    weights = [_numbers(run.method.learner.state_dict())]
    run = Run.resume(folder)
    state = run.train().state
    fewstep.load(folder)
    settings = {name: value for name, value in dotted(run.config).items() if name not in ELSEWHERE}
    return weights, _numbers(run.method.learner.state_dict()), replace(state, seconds=0.0), settings


def _numbers(tensors: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


def _checkpoint(folder: Path) -> list[Path]:
    Run.create(_short(), folder / "run").train()
    return [folder / "run" / "last.safetensors"]


def _config(folder: Path) -> list[Path]:
    Run.create(_short(), folder / "run")
    return [folder / "run" / "config.json"]


def _model(folder: Path) -> list[Path]:
    Run.create(_short(), folder / "run").train()
    x = np.linspace(0, 1, 5)[:, None]
    return [fewstep.load(folder / "run").fit(x, np.sin(x[:, 0])).save(folder / "sine")]


def _as_model(path: Path) -> Any:
    model, tensors, told = read(path)
    fewstep.load(path)
    return _numbers(tensors), json.dumps(told), type(model)


def _extractor(folder: Path) -> list[Path]:
    architecture = Architecture("convnet", (3, 4), pools=1)
    FeatureExtractor(Standardised(architecture.build(3, 1)), architecture).save(folder / "of.safetensors")
    return [folder / "of.safetensors"]


def _as_extractor(path: Path) -> Any:
    found = FeatureExtractor.load(path)
    return _numbers(found.state_dict()), found.metadata()


KINDS = {
    "npz": Kind(_npz, lambda folder: _features(folder / "features.npz"), True),
    "compressed npz": Kind(_compressed, lambda folder: _features(folder / "features.npz"), True),
    "npy": Kind(_converted("features.npy"), lambda folder: _features(folder / "features.npy"), False),
    "safetensors": Kind(_converted("f.safetensors"), lambda folder: _features(folder / "f.safetensors"), False),
    "pickle": Kind(_converted("embeddings"), lambda folder: _features(folder / "embeddings"), False),
    "csv": Kind(_csv, lambda folder: _features(folder / "features.csv"), False),
    "json": Kind(_config, lambda folder: dotted(stored_config(folder / "run")), False),
    "model": Kind(_model, lambda folder: _as_model(next(folder.glob("*.fewstep.safetensors"))), True),
    "extractor": Kind(_extractor, lambda folder: _as_extractor(folder / "of.safetensors"), True),
    "checkpoint": Kind(
        _checkpoint,
        lambda folder: (
            read_state(folder / "run" / "last.safetensors"),
            _numbers(read_tensors(folder / "run" / "last.safetensors")[0]),
        ),
        True,
    ),
    "run": Kind(_run, _as_run, True, ("features.npz", "threads must be", "device")),
}


# -- what reading comes to ---------------------------------------------------------------------------------------------


class TooLongError(Exception):
    """Reading does not end."""


@contextmanager
def _limited() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TooLongError(f"more than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def outcome(kind: Kind, folder: Path, victim: Path, content: bytes, original: Any) -> tuple[str, str]:
    """What reading a folder comes to when a file of it has another content; and in words, if that is a fault."""
    kept = victim.read_bytes()
    victim.unlink()  # not written over: what is mapped keeps its bytes
    victim.write_bytes(content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        with _limited():
            found = kind.read(folder)
        told = "same" if repr(found) == repr(original) else "other"
    except (ValueError, OSError) as error:
        message = str(error)
        named = any(part in message for part in (victim.name, str(victim.parent), str(folder), *kind.words))
        if not named or "\n" in message:
            return "fault", f"no name, or no single line: {type(error).__name__}: {message:.300}"
        told = "refused"
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return "fault", f"{type(error).__name__}: {error!s:.300}"
    finally:
        victim.unlink(missing_ok=True)
        victim.write_bytes(kept)
    if (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 > MEMORY:
        return "fault", f"more than {MEMORY} bytes of memory"
    return ("fault", "other values") if told == "other" and kind.knows else (told, "")


def campaign(name: str, seeds: range, folder: Path) -> tuple[Counter[str], list[str]]:
    """Counts of outcomes, and the faults."""
    kind, counts, faults = KINDS[name], Counter[str](), []
    victims = kind.make(folder)
    contents = {victim: victim.read_bytes() for victim in victims}
    original = kind.read(folder)
    assert repr(kind.read(folder)) == repr(original), "what is read is the same each time"
    for seed in seeds:
        source = random.Random(f"{name} {seed}")
        victim = source.choice(victims)
        told, fault = outcome(kind, folder, victim, mutated(contents[victim], source), original)
        counts[told] += 1
        if told == "fault":
            faults.append(f"{name}, seed {seed}, {victim.name}: {fault}")
    return counts, faults


def guided(name: str, seconds: int, found: Path) -> None:
    """Mutations that Atheris (libFuzzer) chooses by what they reach in the readers; faults go to a file, a line each.

    It ends this process.
    """
    import atheris

    kind, folder = KINDS[name], Path(tempfile.mkdtemp())
    victims, corpus = kind.make(folder), Path(tempfile.mkdtemp())
    for i, victim in enumerate(victims):
        (corpus / str(i)).write_bytes(bytes([i]) + victim.read_bytes())
    original = kind.read(folder)

    def read(data: bytes) -> None:
        if data:
            victim = victims[data[0] % len(victims)]
            told, fault = outcome(kind, folder, victim, data[1:], original)
            with found.open("a") as file:
                file.write(json.dumps([name, told, f"{victim.name}: {fault}", data.hex() if fault else ""]) + "\n")

    watched = re.compile(r"fewstep\.(data|estimators|experiments|recipes|training)|zipfile|json|csv|numpy\.lib")
    for function in [one for one in gc.get_objects() if inspect.isfunction(one)]:
        if watched.match(function.__module__ or ""):
            atheris.instrument_func(function)
    atheris.Setup([sys.argv[0], str(corpus), f"-max_total_time={seconds}", "-verbosity=0", "-max_len=200000"], read)
    atheris.Fuzz()


def _work(name: str, seeds: range, connection: Any) -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        connection.send(campaign(name, seeds, Path(folder)))


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    words.add_argument("--mutations", type=int, default=10_000)
    words.add_argument("--kinds", nargs="*", default=list(KINDS))
    words.add_argument("--seed", type=int, default=0)
    words.add_argument("--out", type=Path, default=Path("mutations.json"))
    words.add_argument("--atheris", type=int, default=0, help="seconds of mutations of a kind that it chooses, instead")
    asked = words.parse_args()
    if asked.atheris:
        for name in asked.kinds:
            one = multiprocessing.get_context("fork").Process(target=guided, args=(name, asked.atheris, asked.out))
            one.start()
            one.join()
        lines = [json.loads(line) for line in asked.out.read_text().splitlines()]
        print(Counter((name, told) for name, told, *_ in lines), *(one for one in lines if one[3]), sep="\n")
        return int(any(one[3] for one in lines))
    context, all_faults, table = multiprocessing.get_context("fork"), [], {}
    for name in asked.kinds:
        counts: Counter[str] = Counter()
        for start in range(0, asked.mutations, TOGETHER):
            seeds = range(asked.seed + start, asked.seed + min(start + TOGETHER, asked.mutations))
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=_work, args=(name, seeds, theirs))
            process.start()
            theirs.close()
            try:
                some, faults = ours.recv()
            except EOFError:
                some, faults = Counter(fault=1), [f"{name}, among seeds {seeds}: the process died"]
            process.join()
            counts += some
            all_faults += faults
            table[name] = {"knows": KINDS[name].knows, **counts}
            asked.out.write_text(json.dumps({"counts": table, "faults": all_faults}, indent=1) + "\n")
        print(name, dict(counts), flush=True)
    print("\n".join(all_faults[:50]))
    return 1 if all_faults else 0


if __name__ == "__main__":
    sys.exit(main())
