"""Draw the picture of meta-gradients.md, from the Python of that page: ``python docs/meta_gradients.py``."""

import contextlib
import io
import re
from pathlib import Path

import torch
from matplotlib.figure import Figure

from fewstep import imaml

PAGE = Path(__file__).with_name("meta-gradients.md")
PICTURE = PAGE.parent / "images" / "meta-gradients.png"
# Okabe and Ito's colours, told apart under every common colour blindness; styles and labels say the same again.
COLOURS = {"joint": "#555555", "FOMAML": "#E69F00", "MAML": "#0072B2", "iMAML": "#CC3377", "Reptile": "#009E73"}
NAMES = {"joint": "joint", "FOMAML": "first-order\nMAML", "MAML": "MAML", "iMAML": "iMAML", "Reptile": "Reptile"}


def page_until(heading: str) -> dict:
    """What the page's code has defined where a heading begins."""
    text, space = PAGE.read_text(encoding="utf-8").partition(f"\n## {heading}")[0], {}
    with contextlib.redirect_stdout(io.StringIO()):
        for block in re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
            exec(compile(block, PAGE.name, "exec"), space)
    return space


def draw(path: Path) -> None:
    """Both panels, as a PNG."""
    page = page_until("A problem that cannot")
    figure = Figure(figsize=(9.6, 4.3), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
    arrows(left, page)
    filters(right, page)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=130, metadata={"Software": None})


def arrows(axis, page: dict) -> None:
    """The plane: contours of the support loss, adaptation, and every outer step at equal length."""
    theta, a, b, H = (page[name] for name in ("theta", "a", "b", "H"))
    x, y = torch.meshgrid(torch.linspace(-2.95, 2.45, 200), torch.linspace(-0.9, 3.75, 200), indexing="xy")
    offset = torch.stack([x, y], -1).double() - a
    axis.contour(x, y, 0.5 * torch.einsum("...i,ij,...j", offset, H, offset), levels=9, colors="0.82", linewidths=0.8)

    # The library adapts with each number of steps, and with each λ.
    maml, support = page["in_the_plane"]["MAML"], page["drawn"].support
    path = [theta]
    for maml.learner.stages[0].steps in range(1, page["steps"] + 1):
        path.append(maml.adapt(support).value["weight"][0, 0])
    maml.learner.stages[0].steps = page["steps"]
    curve = [theta]
    for prox in torch.logspace(2, -3, 30).tolist():
        solver = imaml(page["plane"], rate=1 / (prox + 2), steps=100, prox=prox, loss=page["squares"])
        curve.append(solver.adapt(support).value["weight"][0, 0])
    axis.plot(*torch.stack(curve).T, color="0.35", linewidth=1.1, linestyle=(0, (4, 2)))
    axis.plot(*torch.stack(path).T, color="0.1", marker="o", markersize=3.5, linewidth=1.1)
    axis.annotate("φ₅", path[-1].tolist(), (6, -5), textcoords="offset points")

    for name, method in page["in_the_plane"].items():
        step = -page["delta"](method, page["drawn"])
        tip = theta + 1.75 * step / step.norm()
        style = {"arrowstyle": "-|>,head_width=0.28,head_length=0.55", "color": COLOURS[name], "linewidth": 2.0}
        axis.annotate("", tip.tolist(), theta.tolist(), arrowprops=style | {"shrinkA": 0, "shrinkB": 0})
        x, y = (tip + 0.09 * step / step.norm()).tolist()
        across = "center" if abs(step[0]) < 0.6 * step.norm() else ("left" if step[0] > 0 else "right")
        across = {"MAML": "right", "iMAML": "right", "Reptile": "left"}.get(name, across)
        axis.text(
            x,
            y,
            NAMES[name],
            color=COLOURS[name],
            ha=across,
            va="center" if across != "center" else "bottom",
            weight="bold",
            fontsize=9,
        )
    for point, name, place in (
        (theta, "θ", (-4, -14)),
        (a, "a: best for the support", (-8, 9)),
        (b, "b: best for the query", (9, 3)),
    ):
        axis.plot(*point, color="0.1", marker="o" if name == "θ" else "*", markersize=5 if name == "θ" else 10)
        axis.annotate(name, point.tolist(), place, textcoords="offset points", fontsize=9)
    axis.set(aspect="equal", xticks=[], yticks=[], title="Where every method would move θ")


def filters(axis, page: dict) -> None:
    """What each Jacobian leaves of a direction, by its curvature."""
    h, rate, steps, prox = torch.linspace(0, 2.4, 200), page["rate"], page["steps"], page["prox"]
    curves = {
        "FOMAML": (torch.ones_like(h), "-.", "first-order MAML, Reptile: 1"),
        "iMAML": (1 / (1 + h / prox), "--", "iMAML: 1 / (1 + h/λ),  λ = 1/(αK)"),
        "MAML": ((1 - rate * h) ** steps, "-", "MAML: (1 − αh)$^K$"),
    }
    for name, (factor, style, label) in curves.items():
        axis.plot(h, factor, color=COLOURS[name], linestyle=style, linewidth=2.0, label=label)
    for curvature, label in zip(page["curvatures"].tolist(), ("steep axis", "flat axis"), strict=True):
        axis.plot([curvature] * 2, [0, 1], color="0.75", linewidth=0.8, zorder=0)
        style = {"color": "0.35", "fontsize": 9, "rotation": 90, "va": "top"}
        axis.annotate(label, (curvature, 0.98), (4, 0), textcoords="offset points", **style)
    axis.set(xlabel="curvature h of the support loss", ylabel="factor", ylim=(0, 1.38), xlim=(0, 2.4))
    axis.set_title("How much of a direction the Jacobian keeps")
    axis.legend(frameon=False, fontsize=9, loc="upper right")
    axis.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    draw(PICTURE)
    print(PICTURE)
