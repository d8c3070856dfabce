"""Settings of descents that differ between training and test."""

import pytest

from fewstep.algorithms import imaml, leo, reptile
from fewstep.core import Learner
from fewstep.evaluation import inner_steps, set_inner_loop, with_inner_loop
from fewstep.networks import mlp
from fewstep.recipes.methods.adapting import Imaml
from fewstep.recipes.methods.network import Network
from fewstep.recipes.methods.others import Reptile


def settings(learner: Learner) -> list[tuple[int, int | None, float]]:
    return [(s.steps, s.batch, s.prox) for s in learner.stages if hasattr(s, "steps")]


def test_what_was_changed_for_a_while_is_put_back_also_after_an_error() -> None:
    learner = imaml(mlp((2, 2)), rate=0.1, steps=3, prox=2.0).learner
    inside = []

    def fail() -> None:
        with with_inner_loop(learner, steps=9, batch=4, prox=0.0):
            inside.extend(settings(learner))
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert inside == [(9, 4, 0.0)]
    assert settings(learner) == [(3, None, 2.0)]


def test_every_descent_takes_the_inner_steps() -> None:
    learner = leo(4, latents=2, latent_steps=2, finetuning_steps=3).learner
    with inner_steps(learner, 0):
        assert [steps for steps, _, _ in settings(learner)] == [0, 0]
    assert [steps for steps, _, _ in settings(learner)] == [2, 3]


@pytest.mark.parametrize(("wrong", "message"), [({"steps": -1}, "zero or more, got -1"), ({"rate": 1}, "rate")])
def test_wrong_settings_change_nothing(wrong: dict[str, int], message: str) -> None:
    learner = reptile(mlp((2, 2)), rate=0.1, steps=3).learner
    with pytest.raises(ValueError, match=message), with_inner_loop(learner, **wrong):
        pass
    with pytest.raises(ValueError, match=message):
        set_inner_loop(learner, **wrong)
    assert settings(learner) == [(3, None, 0.0)]
    assert not hasattr(learner.stages[0], "rate")


def test_what_methods_do_otherwise_in_a_test() -> None:
    network = Network("mlp")
    assert Reptile(network=network, rate=0.1, steps=5, batch=10, test_steps=50, test_batch=5).at_test() == {
        "steps": 50,
        "batch": 5,
    }
    assert Imaml(network=network, rate=0.1, steps=5, prox=2.0, variant="authors").at_test() == {"prox": 0.0}
    assert Imaml(network=network, rate=0.1, steps=5, prox=2.0).at_test() == {}
