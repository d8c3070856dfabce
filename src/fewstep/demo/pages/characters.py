"""The page of characters: pads to draw on, the name of the query at three stages, and the paths of codes."""

from __future__ import annotations

import html
from importlib.resources import files
from typing import Any

import gradio as gr
import numpy as np

from fewstep.demo.characters import FEWEST, LETTERS, MOST, Naming, answer
from fewstep.demo.drawing import PEN, SIDE
from fewstep.demo.pages.pictures import paths, seen
from fewstep.estimators.model import TrainedModel

STAGES = {"before": "Before adaptation", "latent": "After latent steps", "after": "After fine-tuning"}

_HEAD = """
# Invent characters. It learns them from one example each.

Draw one example of each of two to five characters of your own, then one of them again. Size and place do not matter:
what the learner sees is the small picture below each drawing.
"""

_PAD = (  # strokes are drawn by the template, so that a value from anywhere is shown
    '<svg class="pad" viewBox="0 0 1 1" role="img" aria-label="${label}: draw here">${(value || []).map((stroke) => '
    '`<polyline points="${[...stroke, stroke.at(-1)].join(" ")}"/>`).join("")}</svg>'
)
_CSS = f".pad {{ stroke-width: {PEN / SIDE:.4f}; }}"


def characters(model: TrainedModel, name: str) -> None:
    """Build the page, within Blocks.

    Args:
        model: of Omniglot's drawings.
        name: what the page calls it.
    """
    kept = "Nothing that you draw is kept, or leaves the machine that runs this page."
    gr.Markdown(f'{_HEAD}\n<p class="quiet">Model: {html.escape(name)}. {kept}</p>')
    with gr.Row(equal_height=True):
        ways = gr.Radio(list(range(FEWEST, MOST + 1)), value=3, label="Characters", scale=3, elem_id="ways")
        fill = gr.Button("Fill in an example", scale=2, elem_id="fill")
        clear = gr.Button("Clear all", scale=1, min_width=120, elem_id="clear")
    columns, drawings = list[Any](), list[tuple[Any, Any, Any]]()
    with gr.Row(elem_id="examples"):
        for i, letter in enumerate(LETTERS):
            with gr.Column(visible=i < 3, min_width=150, elem_id=f"example-{letter}") as column:
                drawings.append(_drawing(letter))
            columns.append(column)
    with gr.Row(elem_id="asked"):
        with gr.Column(min_width=240, scale=1, elem_id="query"):
            drawings.append(_drawing("Which is it?"))
        with gr.Column(min_width=300, scale=3):
            said = gr.HTML("Draw the examples first.", html_template='<p id="said" role="status">${value}</p>')
            with gr.Row(visible=False, elem_id="stages") as stages:
                labels = [gr.Label(label=title, show_heading=False, min_width=130) for title in STAGES.values()]
    pads, pictures, clears = map(list, zip(*drawings, strict=True))
    moves = gr.HTML(visible=False, elem_id="movement", container=True)

    def told(ways: int, *drawn: Any) -> list[Any]:
        """What all of the page shows, of the drawings of :data:`LETTERS` and of the query."""
        examples, query = list(drawn[:ways]), drawn[-1]
        if empty := sum(not one for one in examples):
            return _nothing(f"Draw the examples first: {empty} of {ways} are empty.")
        if not query:
            return _nothing("Now draw one of them again.")
        try:
            naming, images = answer(model, examples, query)
        except ValueError as error:
            return _nothing(f"<b>{html.escape(str(error))}</b>")
        small = [seen(image, len(one)) for image, one in zip(images, [*examples, query], strict=True)]
        small[ways:ways] = [""] * (MOST - ways)
        moved = gr.HTML(paths(naming) if naming.codes.size else "", visible=naming.codes.size > 0)
        return [_sentence(naming), gr.Row(visible=True), *_labels(naming), moved, *small]

    asked: dict[str, Any] = {
        "fn": told,
        "inputs": [ways, *pads],
        "outputs": [said, stages, *labels, moves, *pictures],
        "show_progress": "hidden",
        "concurrency_id": "torch",  # which then has the processor to itself
        "trigger_mode": "always_last",  # of strokes that come while one answer is computed, the last is answered
    }
    gr.on([ways.input, *(pad.input for pad in pads)], **asked)
    ways.change(lambda n: [gr.Column(visible=i < n) for i in range(MOST)], ways, columns, show_progress="hidden")
    fill.click(_example, None, [ways, *pads], show_progress="hidden").then(**asked)
    # Without a function of Python these run in the page alone, and return a list of outputs.
    clear.click(None, None, pads, js=f"() => Array({len(pads)}).fill([])").then(**asked)
    for button, pad in zip(clears, pads, strict=True):
        button.click(None, None, pad, js="() => [[]]").then(**asked)


def _drawing(name: str) -> tuple[Any, Any, Any]:
    """A pad, what the learner sees of it, and a button that clears it."""
    settings: dict[str, Any] = {"html_template": _PAD, "css_template": _CSS, "apply_default_css": False}
    script = (files("fewstep.demo.pages") / "pad.js").read_text(encoding="utf-8")
    pad = gr.HTML([], label=name, show_label=True, container=True, js_on_load=script, **settings)
    with gr.Row(elem_classes="below"):
        return pad, gr.HTML(min_width=30), gr.Button("Clear", size="sm", min_width=60)


def _nothing(why: str) -> list[Any]:
    """What the page shows without an answer."""
    return [why, gr.Row(visible=False), *[None] * len(STAGES), gr.HTML(visible=False), *[""] * (MOST + 1)]


def _sentence(naming: Naming) -> str:
    best = int(naming.stages["after"].argmax())
    words = {"before": "before adaptation", "latent": "after latent steps", "after": "after fine-tuning"}
    if "latent" not in naming.stages:
        words["after"] = "after adaptation"
    told = [f"{p[best]:.3f} {words[stage]}" for stage, p in naming.stages.items()]
    return f"It is <b>{LETTERS[best]}</b>, with probability {', '.join(told)}."


def _labels(naming: Naming) -> list[Any]:
    titles = STAGES if "latent" in naming.stages else {**STAGES, "after": "After adaptation"}
    return [
        gr.Label(dict(zip(LETTERS, map(float, naming.stages[stage]), strict=False)), label=title, visible=True)
        if stage in naming.stages
        else gr.Label(visible=False)
        for stage, title in titles.items()
    ]


def _example() -> list[Any]:
    """Characters that look like each other, and the second of them in another hand."""
    angle = np.pi * np.linspace(-1, 0.5, 25)
    arc = np.stack([0.5 + 0.2 * np.cos(angle), 0.38 + 0.2 * np.sin(angle)], 1).round(4).tolist()
    zed = [[0.25, 0.25], [0.75, 0.25], [0.3, 0.75], [0.8, 0.75]]
    examples: list[Any] = [
        [zed],
        [zed, [[0.3, 0.5], [0.7, 0.5]]],
        [[*arc, [0.4, 0.8], [0.75, 0.8]]],
        [[*arc, [0.4, 0.8]], [[0.25, 0.6], [0.75, 0.6]]],
        [],
    ]
    query = [[[0.2, 0.34], [0.64, 0.27], [0.74, 0.36], [0.36, 0.76], [0.78, 0.7]], [[0.36, 0.58], [0.68, 0.48]]]
    return [4, *examples, query]
