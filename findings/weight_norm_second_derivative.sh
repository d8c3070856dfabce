#!/usr/bin/env bash
# torch 2.13.0: the second derivative of weight_norm over a dimension is silently wrong on the CPU.
#
# torch.nn.utils.parametrizations.weight_norm writes a weight as g v / ‖v‖, by a fused kernel. Whatever differentiates
# twice through it (a gradient penalty, a Hessian-vector product, MAML) gets another number than the formula written out
# gives, and than central differences of the exact first derivative say. No transform is needed, and nothing warns. The
# first derivative is right, and so is the second over all dimensions at once (dim=None), which has no fused kernel.
#
# Instead: write the formula out, g * v / v.norm(dim=1, keepdim=True).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" - << 'CODE'
import platform

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

print(f"Python {platform.python_version()}, torch {torch.__version__}")
torch.set_default_dtype(torch.float64)


def derivatives(dim, written_out):
    """A loss's first derivative by v[0, 0], its second by the same, and central differences of the first."""
    torch.manual_seed(0)
    layer, x = weight_norm(nn.Linear(5, 4), dim=dim), torch.randn(7, 5)
    g, v = layer.parametrizations.weight.original0, layer.parametrizations.weight.original1

    def first(create_graph=False):
        weight = g * v / (v.norm() if dim is None else v.norm(dim=1, keepdim=True)) if written_out else layer.weight
        loss = F.linear(x, weight, layer.bias).pow(3).mean()
        return torch.autograd.grad(loss, v, create_graph=create_graph)[0]

    slope = first(create_graph=True)[0, 0]
    second = torch.autograd.grad(slope, v)[0][0, 0].item()
    ends = []
    for h in (1e-5, -2e-5):
        with torch.no_grad():
            v[0, 0] += h
        ends.append(first()[0, 0].item())
    return slope.item(), second, (ends[0] - ends[1]) / 2e-5


changed = []
for dim in (0, None):
    slopes = []
    for written_out in (False, True):
        slope, second, differences = derivatives(dim, written_out)
        slopes.append(slope)
        name = f"{'written out' if written_out else 'weight_norm'}, dim={dim}"
        print(f"{name:22} first {slope:+.9f}  second {second:+.9f}  differences of the first {differences:+.9f}")
        wrong, expected = abs(second - differences), dim == 0 and not written_out
        if (wrong > 1e-3) != expected or (not expected and wrong > 1e-7):
            changed.append(name)
    if abs(slopes[0] - slopes[1]) > 1e-12:
        changed.append(f"the first derivative, dim={dim}")
if changed:
    raise SystemExit(f"no longer so: {', '.join(changed)}")
print("as found: weight_norm over a dimension has a wrong second derivative, and a right first one")
CODE
