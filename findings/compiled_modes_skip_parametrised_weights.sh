#!/usr/bin/env bash
# torch 2.13.0: torch.compile applies a TorchFunctionMode to the operations of a module, but not to those that compute a
# parametrised weight. With fullgraph=True the result is silently another one than in eager mode.
#
# A torch.overrides.TorchFunctionMode replaces torch functions, wherever a forward calls them. Compiled, it still does so
# for F.layer_norm inside a layer. Under torch.nn.utils.parametrizations.weight_norm, whose weight is a property that
# calls torch._weight_norm, the mode is not asked: the graph holds torch's own function. Nothing warns.
#
# Instead: compute the weight outside of the module and pass it in, or leave such modules out of the compiled region.
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
from torch.overrides import TorchFunctionMode

print(f"Python {platform.python_version()}, torch {torch.__version__}")


class Doubled(TorchFunctionMode):
    """Two functions give twice what they would."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        return 2 * result if function in (F.layer_norm, torch._weight_norm) else result


def run(module, x):
    with Doubled():
        return module(x)


torch.manual_seed(0)
x, found = torch.randn(3, 4), {}
for name, module in (("layer_norm", nn.LayerNorm(4)), ("weight_norm", weight_norm(nn.Linear(4, 1, bias=False)))):
    torch._dynamo.reset()
    alone, eager = module(x), run(module, x)
    compiled = torch.compile(run, fullgraph=True, backend="eager")(module, x)
    found[name] = [(result / alone).mean().item() for result in (eager, compiled)]
    print(f"{name:12} times what it is without the mode: eager {found[name][0]:.3f}, compiled {found[name][1]:.3f}")
expected = {"layer_norm": [2.0, 2.0], "weight_norm": [2.0, 1.0]}
if any(abs(a - b) > 1e-5 for name in expected for a, b in zip(found[name], expected[name])):
    raise SystemExit(f"no longer so: {found}")
print("as found: compiled code asks the mode inside a layer, and does not ask it for a parametrised weight")
CODE
