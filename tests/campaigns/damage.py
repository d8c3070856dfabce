"""Each file of each folder is damaged in each way, and every command that reads the folder is given."""

from __future__ import annotations

import random
import re
import shutil
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from kills import last_line
from processes import Started, run, waits_for
from same import differences
from small import FEATURES, NETWORK, OTHER_RUN, PHOTOS, RUN, SMALL

from fewstep.training.checkpoint import LAST, read_state

DAMAGES = (
    "truncated",
    "end cut",
    "flipped 1",
    "flipped 2",
    "flipped 3",
    "empty",
    "foreign",
    "another run's",
    "missing",
)
"""Ways to damage a file. Bits are flipped at three places: in the first 200 bytes, in the middle, and in the last."""

RECORDS = ("environment.json", "test.json")
"""Files whose content is told with a result, and is no part of it."""


@dataclass(frozen=True)
class Reader:
    """A command that reads a folder.

    Attributes:
        words: of it; ``FOLDER`` is the folder's name, and ``@NAME`` an input's place.
        result: what it comes to, below the working directory; nothing for what it says.
        folder: what the folder is a copy of, below the inputs.
        other: a folder of the same kind with other content.
    """

    words: str
    result: str
    folder: str
    other: str

    @property
    def of_data(self) -> bool:
        """Whether what it reads was made of the features."""
        return "pretrain" not in self.folder and self.folder != NETWORK


_TRAIN, _SEARCH, _REPEAT = SMALL["train"], SMALL["search"], SMALL["repeat"]

READERS: Mapping[str, Reader] = {
    "evaluate": Reader("evaluate FOLDER --out check --tasks 20", "FOLDER/check.json", RUN, OTHER_RUN),
    "predict": Reader("predict FOLDER --support @support.npz --query @query.npz --out p.csv", "p.csv", RUN, OTHER_RUN),
    "export": Reader("export FOLDER model", "model.fewstep.safetensors", RUN, OTHER_RUN),
    "compare": Reader(f"compare FOLDER @{OTHER_RUN} --tasks 20 --out compared", "compared", RUN, OTHER_RUN),
    "train --resume, finished": Reader("train --resume FOLDER", "FOLDER", RUN, OTHER_RUN),
    "train --resume, stopped": Reader("train --resume FOLDER", "FOLDER", "stopped/train", OTHER_RUN),
    "embed": Reader(f"embed FOLDER @{PHOTOS} --out f.npz", "f.npz", NETWORK, "stopped/pretrain"),
    "pretrain --resume, stopped": Reader("pretrain --resume FOLDER", "FOLDER", "stopped/pretrain", NETWORK),
    "search, stopped": Reader(
        " ".join([*_SEARCH.words, "--out", "FOLDER"]), "FOLDER", "stopped/search", "stopped/repeat"
    ),
    "repeat, finished": Reader(
        " ".join([*_REPEAT.words, "--out", "FOLDER"]), "FOLDER", "expected/repeat/out", "stopped/search"
    ),
}


def make_stopped(inputs: Path) -> None:
    """Folders of commands that were killed half-way."""
    here = inputs / ".stopping"
    for name, runs in {"train": 1, "pretrain": 1, "search": 3, "repeat": 1}.items():
        while not (inputs / "stopped" / name).exists():
            shutil.rmtree(here, ignore_errors=True)
            here.mkdir()
            started = Started(SMALL[name].given(inputs), here, inputs / "cache", here / ".log")
            if waits_for(started, partial(_half_way, here / "out", runs)) and started.sends(signal.SIGKILL):
                started.wait()
                started.left()
                shutil.copytree(here / "out", inputs / "stopped" / name)
            started.wait()
    shutil.rmtree(here, ignore_errors=True)


def _half_way(out: Path, runs: int) -> bool:
    checkpoints = list(out.rglob(LAST))
    try:
        return len(checkpoints) >= runs and min(read_state(path).step for path in checkpoints) > 20
    except ValueError:  # one is being replaced now
        return False


def cases(inputs: Path) -> dict[str, Callable[[Path], dict[str, Any]]]:
    """Every reader with every file of its folder in every state."""
    make_stopped(inputs)
    found: dict[str, Callable[[Path], dict[str, Any]]] = {}
    for name, reader in READERS.items():
        undamaged(name, inputs)
        for file in sorted(path for path in (inputs / reader.folder).rglob("*") if path.is_file()):
            inside = str(file.relative_to(inputs / reader.folder))
            if not file.name.endswith((".part", ".lock", ".log")) and not re.search(r"seed-1|trials/001", inside):
                for harmed in DAMAGES if file.suffix not in (".md", ".png", ".svg") else ("foreign", "missing"):
                    found[f"{name}: {inside} {harmed}"] = partial(damaged, name, inside, harmed, inputs)
        for harmed in ("truncated", "flipped 2", "empty", "foreign", "missing", "noise") if reader.of_data else ():
            found[f"{name}: the data {harmed}"] = partial(damaged, name, "", harmed, inputs)
    return found


def undamaged(name: str, inputs: Path) -> None:
    """What a reader comes to, in ``inputs/read/NAME``."""
    target = inputs / "read" / name
    if target.exists():
        return
    target.mkdir(parents=True)
    reader = READERS[name]
    shutil.copytree(inputs / reader.folder, target / "folder")
    status, said = run(_words(reader, inputs), target, inputs / "cache", inputs / "read" / f"{name}.log")
    if status:
        shutil.rmtree(target)
        raise SystemExit(f"{name} ended with {status}: {said}")


def _words(reader: Reader, inputs: Path) -> list[str]:
    words = reader.words.split(" ")
    return [str(inputs / w[1:]) if w.startswith("@") else w.replace("FOLDER", "folder") for w in words]


def damaged(name: str, inside: str, damage: str, inputs: Path, work: Path) -> dict[str, Any]:
    """Damage one file of a copy, give the command, and look at what comes of it."""
    shutil.rmtree(work, ignore_errors=True)
    here, reader = work / "here", READERS[name]
    here.mkdir(parents=True)
    shutil.copytree(inputs / reader.folder, here / "folder")
    shutil.copytree(inputs / "cache", work / "cache")
    words = _words(reader, inputs)
    told: dict[str, Any] = {"command": name, "kind": damage, "file": inside or "the data"}
    if inside:
        harm(here / "folder" / inside, damage, inputs / reader.other)
    else:  # the data lie in a place of their own, of which every configuration tells
        for path in here.rglob("*.json"):
            path.write_text(path.read_text().replace(str(inputs / FEATURES), str(here / FEATURES)))
        words = [word.replace(str(inputs / FEATURES), str(here / FEATURES)) for word in words]
        shutil.copy(inputs / ("noise.npz" if damage == "noise" else FEATURES), here / FEATURES)
        if damage != "noise":
            harm(here / FEATURES, damage, inputs / RUN)
    status, said = run(words, here, work / "cache", work / "said.txt")
    expected = inputs / "read" / name / reader.result.replace("FOLDER", "folder")
    problems = []
    if "Traceback" in said or status not in (0, 2):
        outcome = "a traceback"
        problems.append(f"status {status}: {last_line(said)}")
    elif status == 2:
        errors = said[said.rindex("error:") :].strip() if "error:" in said else ""
        named = Path(inside or FEATURES).name in errors
        outcome = "refused, with the file's name" if named else "refused"
        told["error"] = errors[:300]
        if not errors or len(errors.splitlines()) > 1:
            problems.append(f"not an error of one line: {said[-300:]}")
    elif (damage == "missing" and (inside in RECORDS or "is gone" in said)) or "it is left out" in said:
        outcome = "the same result, with less told"
    else:
        others = differences(here / reader.result.replace("FOLDER", "folder"), expected)
        own = [one for one in others if inside and inside in one]
        of_the_run = "--resume" in name and Path(inside).suffix in (".safetensors", ".csv")
        if not others:
            outcome = "the same result"
        elif own == others and not of_the_run:
            outcome = "the same result, and the file as it was"
        else:
            outcome = "another result, silently"
            problems.append(f"{outcome}: {others}")
    shutil.rmtree(work, ignore_errors=True)
    return told | {"outcome": outcome, "problems": problems}


def harm(path: Path, damage: str, other: Path) -> None:
    """Damage a file."""
    content = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
        return
    if damage == "truncated":
        content = content[: len(content) // 2]
    elif damage == "end cut":
        content = content[:-7]
    elif damage == "empty":
        content = bytearray()
    elif damage == "foreign":
        content = bytearray(b"PK\x03\x04 this is something else\n" * 20)
    elif damage == "another run's":
        same = other / path.name
        content = bytearray(same.read_bytes()) if same.exists() else bytearray(b"{}")
    elif content:
        source, size = random.Random(f"{path.name} {damage}"), len(content)
        low, high = {"1": (0, min(200, size)), "2": (size // 3, size // 3 * 2 + 1), "3": (size - size // 8 - 1, size)}[
            damage[-1]
        ]
        content[source.randrange(low, high)] ^= 1 << source.randrange(8)
    path.write_bytes(bytes(content))
