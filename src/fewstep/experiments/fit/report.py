"""The files of a fit: result.json, report.md, the trials as a table, and the picture."""

from __future__ import annotations

from functools import partial

from fewstep.evaluation.figures import images
from fewstep.evaluation.tables import markdown_lines, protocol_lines, record_rows, write_files
from fewstep.experiments.fit.methods import settings_text
from fewstep.experiments.fit.plot import draw
from fewstep.experiments.fit.result import ACCURACY, FitResult


def write(found: FitResult) -> None:
    """Write all of them into the folder."""
    files = {
        "result.json": found.to_json(),
        **images("fit", partial(draw, list(found.cells.values()))),
        "report.md": markdown(found),  # last: it points to the picture
    }
    if found.trials:
        files = {"trials.csv": record_rows(_records(found))} | files
    write_files(found.folder, files)


def model_name(shots: int, all_shots: int) -> str:
    """The name of a model's file: with its shots where there are several."""
    return f"model-{shots}shot.fewstep.safetensors" if all_shots > 1 else "model.fewstep.safetensors"


def markdown(found: FitResult) -> str:
    """The report as a page."""
    models = [model_name(k, len(found.cells)) for k in found.cells]
    blocks = [
        f"# {found.protocol['data']}: what to use with few examples",
        "\n\n".join(f"**{text}**" for text in found.verdicts()),
        "\n".join(markdown_lines(found.lines([*found.cells], bold=True))),
        "Accuracy in % ± half of the 95% interval over test tasks; gain: over the simple method that is best "
        "in the test, paired by task. Bold: recommended. Validation tasks choose, where a method has to be more than a "
        "standard error better than a simpler one; the test overrules them where the best trained or the best simple "
        "method lies above the chosen one with its whole interval. "
        "Meta-learning pays where the trained method that validated best lies, with its whole interval, "
        "above the simple one that is best in the test. Intervals are of the choice of tasks from these test classes; "
        "other classes, or another training seed, are not covered by them.",
        "![Points over the best simple method](fit.svg)",
        "## Protocol",
        "\n".join(protocol_lines(found.protocol)),
        *(["\n".join(f"- {remark}" for remark in found.remarks)] if found.remarks else []),
    ]
    for shots, cell in found.cells.items():
        rows = [["method", "chosen settings", "tried", "validation, %", "test, %"]]
        for row in cell.rows:
            rows.append(
                [row.name, row.settings, str(row.trials), ACCURACY.text(row.validation), ACCURACY.text(row.test)]
            )
        blocks += [f"## {shots}-shot", "\n".join(markdown_lines(rows))]
    if failures := found.failures():
        blocks += ["## Not tried, or failed", "\n".join(f"- {line}" for line in failures)]
    if found.trials:
        shown = [
            [
                f"{one['method']}, {one['shots']}-shot, {one['trial']}",
                f"{100 * one['value']:.2f}" if "value" in one else "–",
                str(one.get("steps", "")),
                f"{one.get('seconds', 0):.0f}",
                settings_text(one["settings"]) if "settings" in one else one.get("error") or one.get("skipped", ""),
            ]
            for one in found.trials
        ]
        head = ["training", "validation, %", "meta-steps", "seconds", "settings"]
        blocks += ["## What was trained", "\n".join(markdown_lines([head, *shown]))]
    usage = [f"fewstep predict {name} --support labelled.npz --query new.npz" for name in models]
    blocks += [
        "## How to use it",
        "```\n" + "\n".join(usage) + "\n```",
        "```python\nfrom fewstep import FewShotClassifier\n\n"
        f'FewShotClassifier("{models[0]}").fit(x, y).predict(x_query)\n```',
        "Rows are features of the same kind as those that it was fitted on, as they are: what scales and centres them "
        "is in the file.",
    ]
    return "\n\n".join(blocks) + "\n"


def _records(found: FitResult) -> list[dict[str, object]]:
    names = ("value", "steps", "best_step", "validation_tasks", "seconds", "error", "skipped")
    return [
        {
            "method": one["method"],
            "shots": one["shots"],
            "trial": one["trial"],
            **{name: one.get(name) for name in names},
            "settings": settings_text(one["settings"]) if "settings" in one else "",
        }
        for one in found.trials
    ]
