"""CSN: conditionally shifted neurons (Munkhdalai, Yuan, Mehri and Trischler 2018)."""

from typing import Literal

from torch import nn

from fewstep.core import Backprop, Learner, Loss, Memory, Method
from fewstep.core.ranges import Count, CountOrZero, Ways, checked
from fewstep.networks.shifting import ConditionallyShifted


@checked
def csn(
    network: nn.Module,
    key: nn.Module,
    ways: Ways,
    *,
    layers: CountOrZero | None = None,
    units: Count = 20,
    information: Literal["feedback", "error"] = "feedback",
    similarity: Literal["cosine", "dot"] = "cosine",
    inside: bool = False,
    loss: Loss | None = None,
) -> Method:
    """Remember a network's errors on the support, and shift its units for each query by those on rows that are alike.

    ``h = ReLU(a) + ReLU(β)`` in hidden layers, ``logits + β`` in the last; ``β = Σ_i α_i v_i``,
    ``α = softmax_i sim(f(x), f(x_i))``; ``v_i = g(ReLU'(a_i) δ_i)``, ``δ_i = softmax − y_i`` (direct feedback), or g of
    ``∂L_i/∂a_i``. Meta-gradient ``∇L_Q`` with respect to the network, f and g. There is no inner loop: the support
    passes the network once, and gradients go through its errors too, on which the paper is silent.

    We could not read the paper: this is what a port and others say of it. The port takes products for cosines and adds
    β before the ReLU (``similarity="dot", inside=True``). At logit n the value is ``g(δ_n δ)``, as in the port: of δ
    alone it would be one for all classes. That g is one for all layers, and that errors come as two numbers (a
    logarithm and a sign), is ours. Dropout and the residual network with shifted blocks are left out.

    Args:
        network: the base learner, layers one after another that end with logits, such as ``Conv4(5)``.
        key: f, whose outputs are features ``[rows, features]``, such as ``Conv4(None)``.
        ways: number of classes, in meta-training and ever after.
        layers: how many of the ReLUs are shifted, from the last, beside the logits; all when omitted. The paper shifts
            the last ones, how many we do not know.
        units: of the two hidden layers of g.
        information: what values are made of: direct feedback or the errors.
        similarity: of keys, whose softmax reads the memory.
        inside: shift before the ReLU.
        loss: of query rows; softmax cross-entropy when omitted. The errors are of cross-entropy.

    Example:
        >>> method = csn(mlp((8, 16, 3)), key=mlp((8, 16)), ways=3)
        >>> points = method.adapt(clusters.support)  # no steps: keys and values of each task's support
        >>> method.predict(points, clusters.query).shape
        torch.Size([4, 15, 3])
    """
    whole = ConditionallyShifted(
        network, key, ways, layers=layers, units=units, information=information, similarity=similarity, inside=inside
    )
    return Method(Learner(whole, Memory(), [], loss=loss), Backprop())
