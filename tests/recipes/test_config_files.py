"""Configurations as files, in JSON and in YAML, and what is said of those that are none."""

import json
from pathlib import Path

import pytest
import yaml

from fewstep.recipes import RECIPES, from_json, to_json


@pytest.mark.parametrize("recipe", ["leo-features-5shot", "maml-sinusoid"])
def test_yaml_says_the_same_as_json(recipe: str, tmp_path: Path) -> None:
    config = RECIPES[recipe]()
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(json.loads(to_json(config))))
    assert from_json(tmp_path / "a.yaml") == config


@pytest.mark.parametrize(
    ("place", "name", "told"),
    [
        (("training",), "validate_evry", r"there is no validate_evry, did you mean validate_every\? .*training"),
        ((), "sead", "there is no sead, did you mean seed"),
        (("method",), "zzz", "there is no zzz, only .*"),
    ],
)
def test_an_unknown_field_is_named_with_the_nearest(
    place: tuple[str, ...], name: str, told: str, tmp_path: Path
) -> None:
    content = json.loads(to_json(RECIPES["maml-sinusoid"]()))
    part = content
    for step in place:
        part = part[step]
    part[name] = 3
    (tmp_path / "a.yml").write_text(yaml.safe_dump(content))
    with pytest.raises(ValueError, match=told):
        from_json(tmp_path / "a.yml")


@pytest.mark.parametrize(
    ("text", "told"),
    [("a: [1", "is no YAML"), ("- 1", "is not a configuration"), ("!!python/name:os.system", "no YAML")],
)
def test_what_is_no_configuration_is_told(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ValueError, match=told):
        from_json(tmp_path / "a.yaml")
