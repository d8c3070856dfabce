#!/usr/bin/env bash
# torch 2.13.0: on the CPU, optimisers with fused=True step along a permuted gradient when its strides are not the weight's.
#
# The fused kernels of SGD, Adam, AdamW and Adagrad walk through weight and gradient as they lie in memory. A weight of a
# convolution is contiguous, and its gradient is not always: compiled code and torch.func hand out gradients that lie
# channels-last. (backward() lays them as the weight before it stores them; whoever sets w.grad by hand, as programs with
# functional gradients do, stores what there is.) Entry i in memory of the one then moves by entry i of the other: nothing
# warns, and training is silently worse. The same optimisers without fused=True are right.
#
# Instead: give a gradient the strides of its weight before the step, torch.empty_like(w).copy_(gradient).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" - << 'CODE'
import platform

import torch

print(f"Python {platform.python_version()}, torch {torch.__version__}")
changed = []
for kind in (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.Adagrad):
    for fused in (False, True):
        steps = {}
        for laid in (torch.contiguous_format, torch.channels_last):
            torch.manual_seed(0)
            weight, gradient = torch.nn.Parameter(torch.zeros(4, 3, 3, 3)), torch.randn(4, 3, 3, 3)
            weight.grad = gradient.to(memory_format=laid)
            assert torch.equal(weight.grad, gradient)  # the same numbers
            kind([weight], lr=0.1, fused=fused).step()
            steps[laid] = -weight.detach()
        along = (steps[torch.channels_last].sign() == gradient.sign()).double().mean().item()
        same = torch.equal(*steps.values())
        print(f"{kind.__name__:8} fused={fused!s:5}  entries that move against their gradient: {along:.0%}, as contiguous: {same}")
        if same == fused or (along == 1.0) == fused:
            changed.append(f"{kind.__name__}, fused={fused}")
if changed:
    raise SystemExit(f"no longer so: {', '.join(changed)}")
print("as found: many entries move the wrong way, as a permuted gradient has them")
CODE
