from dataclasses import replace
from pathlib import Path

import pytest

from fewstep.commands.main import main
from fewstep.experiments.forecast import forecast
from fewstep.recipes import RECIPES


def test_a_forecast_says_what_a_run_would_be_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    config = RECIPES["maml-sinusoid"]()
    training = replace(config.training, steps=4000, validate_every=1000, validation_tasks=8, patience=2)
    found = forecast(replace(config, training=training, testing=replace(config.testing, tasks=20)))
    assert found["meta-parameters"] == "1,761"
    assert found["training"] == "4,000 meta-steps of 25 tasks; 4 validations of 8 tasks"
    assert found["test"] == "20 tasks at 2 numbers of shots"
    assert "ms each" in found["time"]
    assert found["time"].endswith("less where 2 validations in a row bring nothing new")
    main(["train", "maml-sinusoid", "--dry-run", "--testing.tasks", "20", "--training.validation-tasks", "8"])
    assert "70,000 meta-steps of 25 tasks" in " ".join(capsys.readouterr().out.split())
    assert not list(tmp_path.iterdir())


def test_what_a_training_would_refuse_a_forecast_refuses() -> None:
    with pytest.raises(ValueError, match=r"--data\.path"):
        forecast(RECIPES["leo-features-1shot"]())
    told = forecast(RECIPES["leo-omniglot"]())
    assert "its features are made first" in told["time"]
