#!/usr/bin/env bash
# torch 2.13.0: the gradient of a vmapped function that takes a gradient itself is silently wrong where it passes an
# affine F.layer_norm or F.batch_norm.
#
# That is the shape of meta-learning and of every bilevel objective: each task takes a step of gradient descent, all tasks
# at once by torch.func.vmap, and the outer gradient passes through the steps. Here one step is taken in float64. A loop
# over the tasks, vmap of the gradient instead of the gradient of vmap, and central differences agree to 9 digits; the
# gradient of vmap is another number, with no warning. layer_norm without its affine part is right, and so is group_norm.
#
# Instead: multiply by the weight and add the bias outside of the norm, or take vmap(grad(f)).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" - << 'CODE'
import platform

import torch
import torch.nn.functional as F
from torch.func import grad, vmap

print(f"Python {platform.python_version()}, torch {torch.__version__}")
torch.manual_seed(0)
torch.set_default_dtype(torch.float64)
tasks = torch.randn(3, 6, 4)  # three tasks of six rows
v, weight, bias = torch.randn(4, 5), torch.randn(5), torch.randn(5)

NORMS = {
    "layer_norm": lambda x, w, b: F.layer_norm(x, (5,), w, b),
    "batch_norm": lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True),
    "layer_norm, affine part outside": lambda x, w, b: F.layer_norm(x, (5,)) * w + b,
    "group_norm": lambda x, w, b: F.group_norm(x, 1, w, b),
}
WRONG = {"layer_norm", "batch_norm"}


def entry(norm):
    """d/dv[0, 0] of the mean over tasks of the loss after one step, in four ways."""

    def loss(p, x):
        return norm(x @ p[0], p[1], p[2]).tanh().square().mean()

    def after_a_step(p, x):
        return loss(tuple(a - 0.5 * g for a, g in zip(p, grad(loss)(p, x))), x)

    def vmapped(p):
        return vmap(after_a_step, (None, 0))(p, tasks).mean()

    def looped(p):
        return torch.stack([after_a_step(p, x) for x in tasks]).mean()

    p, h = (v, weight, bias), torch.zeros_like(v)
    h[0, 0] = 1e-5
    assert torch.allclose(vmapped(p), looped(p), rtol=1e-12)  # the function's value is right
    return {
        "grad(vmap)": grad(vmapped)(p)[0][0, 0].item(),
        "grad(loop)": grad(looped)(p)[0][0, 0].item(),
        "vmap(grad)": vmap(grad(after_a_step), (None, 0))(p, tasks)[0].mean(0)[0, 0].item(),
        "differences": ((looped((v + h, weight, bias)) - looped((v - h, weight, bias))) / 2e-5).item(),
    }


changed = []
for name, norm in NORMS.items():
    found = entry(norm)
    print(f"{name:32}", *(f"{way} {value:+.9f}" for way, value in found.items()))
    true = found.pop("differences")
    off = {way: abs(value / true - 1) for way, value in found.items()}
    wrong = off.pop("grad(vmap)")
    if max(off.values()) > 1e-6 or (wrong > 1e-2) != (name in WRONG) or (name not in WRONG and wrong > 1e-6):
        changed.append(name)
if changed:
    raise SystemExit(f"no longer so: {', '.join(changed)}")
print("as found: grad(vmap) is wrong through affine layer_norm and batch_norm alone")
CODE
