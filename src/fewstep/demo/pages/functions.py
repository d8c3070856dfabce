"""The page of functions: points that are clicked, and functions through them."""

from __future__ import annotations

import html
from importlib.resources import files
from typing import Any

import gradio as gr
import numpy as np
from jaxtyping import Float

from fewstep.demo.functions import ACROSS, POINTS, UP, WITHIN, Functions, answer, points
from fewstep.demo.pages.pictures import COLOURS, FRAME, curves
from fewstep.estimators.model import TrainedModel
from fewstep.recipes.problems.functions import SineOrLineTasks

_HEAD = """
# A sine or a line? What a few points tell.

Click points on either plot. The learner has seen noisy sine curves and noisy lines, and samples functions that the
points may come from. Beside them is what can be known at best: the exact Bayesian posterior.
"""


def functions(model: TrainedModel, tasks: SineOrLineTasks, name: str) -> None:
    """Build the page, within Blocks.

    Args:
        model: of sine-or-line tasks.
        tasks: those that it was trained on.
        name: what the page calls it.
    """
    gr.Markdown(
        f'{_HEAD}\n<p class="quiet">Model: {html.escape(name)}, trained on {tasks.shots} points a task. Sines are '
        "y = A sin(x − φ) with A from 0.1 to 5 and φ from 0 to π, lines y = a x + b with a and b from −3 to 3, and the "
        f"noise is {tasks.noise:g}. Of points that none of these can have made, neither panel knows anything.</p>"
    )
    with gr.Row(equal_height=True):
        x = gr.Number(label="x", minimum=-ACROSS, maximum=ACROSS, value=2.0, step=0.1, min_width=100, elem_id="x")
        y = gr.Number(label="y", minimum=-UP, maximum=UP, value=1.0, step=0.1, min_width=100, elem_id="y")
        add = gr.Button("Add this point", min_width=120, elem_id="add")
        fill = gr.Button("Fill in an example", min_width=120, elem_id="fill")
        undo = gr.Button("Take the last back", min_width=120, elem_id="undo")
        clear = gr.Button("Clear all", min_width=120, elem_id="clear")
    nothing = _plots(np.zeros((0, 2)), None)
    said = gr.HTML("Click a point.", html_template='<p id="said" role="status">${value}</p>')
    plots = gr.HTML(
        [],
        html_template="${picture}",
        js_on_load=(files("fewstep.demo.pages") / "plot.js").read_text(encoding="utf-8"),
        elem_id="plots",
        picture=nothing,
        frame=FRAME,
        reach=[ACROSS, UP],
    )
    legend = f"Thin: sampled functions. Thick: the mean. Shaded: where a target lies with probability {WITHIN:g}."
    gr.Markdown(f'<p class="quiet">{legend}</p>')

    def told(given: Any) -> list[Any]:
        """What all of the page shows, of the points on it."""
        if not given:
            return ["Click a point.", gr.HTML(picture=nothing)]
        try:
            at = points(given)
        except ValueError as error:
            return [f"<b>{html.escape(str(error))}</b>", gr.HTML()]
        try:
            found = answer(model, tasks.noise, at)
        except ValueError as error:
            return [f"<b>{html.escape(str(error))}</b>", gr.HTML(picture=_plots(at, None))]
        count = "one point" if len(given) == 1 else f"{len(given)} points"
        words = (
            f"After {count}, a line has probability {found.exact.line:.2f}; of the learner's functions "
            f"{found.learned.line:.0%} are lines."
        )
        return [words + " No more points are taken." * (len(given) >= POINTS), gr.HTML(picture=_plots(at, found))]

    def example() -> Any:
        """Noisy points of a function such as the learner has seen."""
        source = np.random.default_rng()
        at = source.uniform(-ACROSS, ACROSS, 5)
        line = source.uniform(-1.2, 1.2) * at + source.uniform(-2, 2)
        sine = source.uniform(1, 5) * np.sin(at - source.uniform(0, np.pi))
        values = (line if source.random() < 0.5 else sine) + source.normal(scale=tasks.noise, size=5)
        return np.stack([at, values.clip(-UP, UP)], 1).round(3).tolist()

    asked: dict[str, Any] = {
        "fn": told,
        "inputs": plots,
        "outputs": [said, plots],
        "show_progress": "hidden",
        "concurrency_id": "torch",  # of characters too
        "trigger_mode": "always_last",
    }
    plots.input(**asked)
    for event in (add.click, x.submit, y.submit):
        event(_added, [plots, x, y], plots, show_progress="hidden").then(**asked)
    # Without a function of Python these run in the page alone, and return a list of outputs.
    undo.click(None, plots, plots, js="(points) => [points.slice(0, -1)]").then(**asked)
    clear.click(None, None, plots, js="() => [[]]").then(**asked)
    fill.click(example, None, plots, show_progress="hidden").then(**asked)


def _added(given: Any, x: Any, y: Any) -> Any:
    """One point more; Gradio has refused what lies outside."""
    if x is None or y is None:
        raise gr.Error("A point needs both numbers.", print_exception=False)
    return [*given, [x, y]]


def _plots(at: Float[np.ndarray, "points 2"], found: Functions | None) -> str:
    x = np.zeros(0) if found is None else found.x
    learned, exact = (None, None) if found is None else (found.learned, found.exact)
    one = curves("The learner", COLOURS[0], at, x, learned)
    return f'<div class="plots">{one}{curves("The exact posterior", COLOURS[1], at, x, exact)}</div>'
