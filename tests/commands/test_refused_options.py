"""Numbers that no setting takes are refused before anything starts, wherever they come from, and nothing is written."""

import json
import shlex
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import pytest
import yaml

from fewstep.commands.main import main
from fewstep.core.ranges import Count, Whole, Within
from fewstep.data import Augmentation
from fewstep.recipes import RECIPES, Config, from_json, to_json

COMMANDS = """
train maml-sinusoid --training.tasks 0
train maml-sinusoid --training.rate inf
train maml-sinusoid --method.rate nan
train maml-sinusoid --testing.tasks 0
train maml-sinusoid --testing.shots 0
train maml-sinusoid --threads 10000
train maml-sinusoid --threads 0
train maml-sinusoid --seed -1
train maml-sinusoid --training.clip-norm 0
train maml-sinusoid --training.patience -1
train maml-sinusoid --data.shots 0
train maml-omniglot-5way-1shot --data.ways 1
train maml-omniglot-5way-1shot --training.recompute --training.compile on
train maml-cifarfs-5way-1shot --data.augmentation.crop -1
train leo-omniglot --data.pretraining.milestones 0.5 0.2
train leo-omniglot --method.latents -3
train leo-omniglot --method.kl-weight -1
train leo-omniglot --data.pretraining.epochs 0
evaluate RUN --tasks 0
evaluate RUN --ways 0
evaluate RUN --ways 1
evaluate RUN --shots 0
evaluate RUN --queries 0
evaluate RUN --seed -1
evaluate RUN --out config
evaluate RUN --out CONFIG
evaluate RUN --out problem
evaluate RUN --out environment
evaluate RUN --out choices
evaluate RUN --out test
evaluate RUN --out test-5-shot
evaluate RUN --out kept
evaluate RUN --out ../kept
evaluate RUN --out /tmp/kept
evaluate RUN --out a/b
evaluate RUN --out a\\\\b
evaluate RUN --out ..
evaluate RUN --out ''
compare RUN maml-sinusoid --tasks 0
compare RUN maml-sinusoid --ways 1
compare RUN maml-sinusoid --queries 0
repeat maml-sinusoid --seeds 0
repeat maml-sinusoid --seeds -2
repeat maml-sinusoid --first-seed -1
repeat maml-sinusoid --workers 0
repeat maml-sinusoid --workers 5000
search leo-cifarfs-1shot --trials 0
search leo-cifarfs-1shot --trials -4
search leo-cifarfs-1shot --trials 2 --search-seed 5000000000
ablate leo-cifarfs-1shot --trials 0
ablate leo-cifarfs-1shot --seeds 0
ablate leo-cifarfs-1shot --final-steps 0
fit DATA --minutes 0
fit DATA --minutes inf
fit DATA --minutes nan
fit DATA --shots 0
fit DATA --ways 1
fit DATA --seed -1
fit DATA --workers 0
analyse RUN --tasks 1
analyse RUN --perplexity 0
analyse RUN --training-steps -1
uncertainty RUN --tasks 0
uncertainty RUN --samples 0
uncertainty RUN --queries -1
plot sine-line RUN --columns 1
plot sine-line RUN --samples 0
plot oscillations RUN --tasks 0
predict RUN --support a --query b --samples 0
predict RUN --support a --query b --noise 0
predict RUN --support a --query b --noise nan
predict RUN --support a --query b --interval 1
predict RUN --support a --query b --interval -0.5
embed DATA --backbone timm:x --out f.npz --batch 0
data convert DATA f.npz --divide -1 2 3
data convert DATA f.npz --seed -1
pretrain cifar-fs --epochs 0
pretrain cifar-fs --rate inf
pretrain cifar-fs --patience -1
pretrain cifar-fs --threads 10000
pretrain cifar-fs --validation-tasks 1
train --resume RUN --out other
train RUN/[/x].json
train [bold]
"""
"""A command line each; RUN and DATA are of the test."""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that looks like a run, in the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "RUN").mkdir()
    (tmp_path / "RUN" / "config.json").write_text(to_json(RECIPES["maml-sinusoid"]()))
    for name in ("RUN/kept.json", "RUN/last.safetensors", "DATA"):
        (tmp_path / name).write_text("{}")
    return tmp_path


@pytest.mark.parametrize("line", COMMANDS.strip().splitlines())
def test_a_command_refuses_what_it_cannot_do(line: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    words = shlex.split(line)
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    told = capsys.readouterr().err.strip().replace("\\\\", "\\")
    assert told.startswith("error: ")
    assert "\n" not in told
    option = [word for word in words if word.startswith("--")][-1:] or words[-1:]
    assert any(part in told.replace("_", "-") for part in (option[0], option[0][2:], words[-1]))
    assert "Traceback" not in told
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


LEO, MAML, CNN, SINE = "leo-omniglot", "maml-omniglot-5way-1shot", "maml-cifarfs-5way-1shot", "leo-sine-line"

SETTINGS = [
    *((MAML, f"training.{name}", 0) for name in ("steps", "tasks", "validate_every", "validation_tasks", "log_every")),
    *((MAML, f"training.{name}", -1) for name in ("patience", "checkpoint_every", "halve_every", "chunk")),
    *((MAML, f"training.{name}", 0.0) for name in ("rate", "eps", "clip_value", "clip_norm")),
    *((MAML, f"training.{name}", float("inf")) for name in ("rate", "eps", "clip_value", "clip_norm")),
    (MAML, "training.rate", float("nan")),
    (MAML, "training.average", 1.0),
    (MAML, "training.steps", 2.5),
    (MAML, "training.steps", "many"),
    (MAML, "training.recompute", "false"),
    (MAML, "training.optimiser", "adamw"),
    (MAML, "method.rate", float("inf")),
    (MAML, "method.rate", -0.1),
    (MAML, "method.steps", -1),
    (MAML, "method.members", 0),
    (MAML, "method.network.hidden", [0]),
    (MAML, "method.network.momentum", 1.5),
    (MAML, "method.network.std", 0.0),
    *((MAML, f"data.{name}", 0) for name in ("ways", "shots", "queries", "train_shots")),
    (MAML, "data.ways", 1),
    (MAML, "data.train_ways", 1),
    *((MAML, f"testing.{name}", 0) for name in ("tasks", "queries")),
    (MAML, "testing.shots", [1, 0]),
    (MAML, "testing.steps", [-1]),
    (MAML, "testing.seed", -1),
    (MAML, "seed", 2**64),
    (MAML, "threads", 10_000),
    (MAML, "dtype", "float16"),
    *((LEO, f"method.{name}", -1) for name in ("latents", "latent_steps", "finetuning_steps")),
    *((LEO, f"method.{name}", -1e-3) for name in ("kl_weight", "encoder_penalty_weight", "l2_weight")),
    (LEO, "method.orthogonality_weight", float("inf")),
    (LEO, "method.dropout", 1.0),
    (LEO, "method.latent_rate", float("nan")),
    (LEO, "data.pretraining.epochs", 0),
    (LEO, "data.pretraining.rate", float("inf")),
    (LEO, "data.pretraining.weight_decay", -1.0),
    (LEO, "data.pretraining.network.pools", -1),
    (CNN, "data.augmentation.crop", -1),
    (SINE, "method.decoder_depth", 0),
    (SINE, "method.spread", -1.0),
    (SINE, "method.clip", 0.0),
    (SINE, "method.noise", 0.0),
    (SINE, "data.noise", -0.1),
]
"""A recipe, a setting of it, and a value that it does not take."""


@pytest.mark.parametrize(("recipe", "setting", "value"), SETTINGS, ids=lambda of: str(of))
@pytest.mark.parametrize("suffix", ["json", "yaml"])
def test_a_file_of_settings_is_refused_by_the_same_ranges(
    recipe: str, setting: str, value: Any, suffix: str, tmp_path: Path
) -> None:
    whole = json.loads(to_json(RECIPES[recipe]()))
    *path, last = setting.split(".")
    place = whole
    for step in path:
        place = place[step]
    place[last] = value
    file = tmp_path / f"config.{suffix}"
    file.write_text(json.dumps(whole) if suffix == "json" else yaml.safe_dump(whole))
    with pytest.raises(ValueError, match=rf"{last}\b") as refused:
        from_json(file)
    assert "\n" not in str(refused.value)
    given = str(value[-1] if isinstance(value, list) else value)
    assert given in str(refused.value) or "must be one of" in str(refused.value)


def test_settings_made_in_python_are_refused_alike() -> None:
    config: Config = RECIPES[MAML]()
    for part, name, value in (
        (config.training, "rate", float("inf")),
        (config.testing, "tasks", 0),
        (config.data, "ways", 1),
        (config.method, "steps", -1),
        (config, "threads", 10_000),
    ):
        with pytest.raises(ValueError, match=f"{name} must be .*, got {value}"):
            replace(part, **{name: value})  # type: ignore[type-var]


def test_what_is_written_otherwise_is_the_same_number(tmp_path: Path) -> None:
    text = yaml.safe_dump(json.loads(to_json(RECIPES[MAML]())))
    file = tmp_path / "config.yaml"
    file.write_text(text.replace("rate: 0.001", "rate: 1e-3"))  # which YAML takes for a text
    assert "1e-3" in file.read_text()
    assert from_json(file) == RECIPES[MAML]()


def unbounded(kind: Any) -> bool:
    """Whether a type takes numbers of any size."""
    if get_origin(kind) is Annotated:
        inner, *more = get_args(kind)
        return not any(isinstance(of, Whole | Within) for of in more) and unbounded(inner)
    return kind in (int, float) or (get_origin(kind) is not Literal and any(map(unbounded, get_args(kind))))


def without_range(settings: Any) -> Iterator[str]:
    """Names of numbers that are not looked at."""
    hints = get_type_hints(type(settings), include_extras=True)
    for field in fields(settings):
        value = getattr(settings, field.name)
        if is_dataclass(value) and not isinstance(value, Augmentation):  # which looks for itself
            yield from without_range(value)
        elif unbounded(hints[field.name]):
            yield f"{type(settings).__name__}.{field.name}"


def test_every_number_of_every_recipe_has_a_range() -> None:
    assert unbounded(tuple[float, ...] | None)
    assert not unbounded(tuple[Count, ...] | None)
    assert {name for recipe in RECIPES.values() for name in without_range(recipe())} == set()
