"""A model card: what a model is, how it was made and tested, and how it is used, in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fewstep.evaluation.scoring import is_mean

CARD = "---\nlibrary_name: fewstep\n"
"""How every card begins."""

_FIT = {
    False: "model.fit(X_few, y_few)  # a few rows of each class, by any names",
    True: "model.fit(X_few, y_few)  # a few points",
}


def model_card(told: Mapping[str, Any], opening: Sequence[str], title: str) -> str:
    """The card of a model's file.

    Args:
        told: what the file says, :func:`~fewstep.estimators.sharing.told_by`.
        opening: lines of Python by which ``model`` is opened.
        title: its name.
    """
    licence = told.get("licence") or ""
    head = ["tags:", "- few-shot-learning", "- meta-learning"]
    if licence:
        head += ["license: other", f"license_name: {licence.splitlines()[0]}"]
    facts = told.get("facts", {})
    regression = told["kind"] == "trained" and told["problem"]["regression"]
    fit = [] if told.get("fitted") else [_FIT[regression]]
    use = ["```python", *opening, *fit, "print(model.predict(X_new))", "```"]
    parts = [*CARD.splitlines(), *head, "---", "", f"# {title}", "", _what(told), "", "## How to use it", "", *use]
    parts += ["", "## How it was tested", "", *_tested(facts.get("test", {})), *_more(facts)]
    parts += ["", "## Limits", "", *_limits(told)]
    versions = ", ".join(f"{name} {version}" for name, version in facts.get("versions", {}).items())
    parts += ["", f"Written by fewstep {told['fewstep']}{f'; trained with {versions}' if versions else ''}."]
    if licence:
        parts += ["", "## Licence", "", licence]
    return "\n".join(parts) + "\n"


def _what(told: Mapping[str, Any]) -> str:
    names = (told.get("fitted") or {}).get("classes_", {}).get("values", [])
    fitted = f" It is fitted to the classes {', '.join(map(str, names))}." if names else ""
    if told["kind"] == "simple":
        return f"A simple classifier that needs no meta-training: {told['rule']}, made by fewstep.{fitted}"
    size = told["problem"]["inputs"]
    takes = " × ".join(map(str, size))
    inputs = "images" if told["extractor"] else "single numbers" if size == [1] else f"inputs of {takes} numbers"
    kind = "A regressor" if told["problem"]["regression"] else "A classifier"
    return (
        f"{kind} that learns from a few examples, meta-trained by `{told['config']['recipe']}` of fewstep; it takes "
        f"{inputs}.{fitted}"
    )


def _tested(test: Mapping[str, Any]) -> list[str]:
    if not test:
        return ["It has not been tested."]
    percent = 100 if test["score"] == "accuracy" else 1
    rows = [
        f"| {name} | {percent * found['mean']:.2f} ± {percent * found['half_width']:.2f} |"
        for name, found in test["scores"].items()
        if found and not is_mean(name)  # of checkpoints, of which a file holds the best
    ]
    kind = "transductive" if test["transductive"] else "inductive"
    stated = ", ".join(f"{name}: {_plain(value)}" for name, value in test["protocol"].items())
    below = [f"**{test['below']}.**", ""] if test.get("below") else []
    unit = "accuracy, %" if percent == 100 else test["score"]
    table = [f"| on the same tasks | {unit} |", "|---|---|", *rows]
    return [*below, *table, "", f"{test['tasks']} tasks, 95% intervals, {kind}. {stated}."]


def _more(facts: Mapping[str, Any]) -> list[str]:
    """The other tests, of other numbers of shots."""
    return [line for test in facts.get("more tests", []) for line in ("", *_tested(test))]


def _plain(value: Any) -> str:
    """Of several numbers by name, all of them in words."""
    return " / ".join(f"{n} {v}" for n, v in value.items()) if isinstance(value, Mapping) else str(value)


def _limits(told: Mapping[str, Any]) -> list[str]:
    if told["kind"] == "simple":
        return ["- It knows nothing but the few examples it is given."]
    found = [f"- It {said}."] if (said := told.get("facts", {}).get("unfinished")) else []
    found += ["- What it was tested on says little of inputs of another kind: test it on classes of your own."]
    width = told["problem"]["inputs"]
    if not told["extractor"] and len(width) == 1 and not told["problem"]["regression"]:
        found.append(f"- It takes features of width {width[0]}, of the network that made those it was trained on.")
    return found
