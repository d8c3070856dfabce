"""Neural processes: CNP (Garnelo, Rosenbaum, Maddison et al. 2018) and NP (Garnelo, Schwarz et al. 2018)."""

from functools import partial

from torch import nn

from fewstep.core import Backprop, Encoded, Learner, Loss, Method, Mixture, normal_regression
from fewstep.core.ranges import Count, CountOrZero, PositiveOrZero, Share, checked
from fewstep.networks import mlp


@checked
def neural_process(
    inputs: Count,
    outputs: Count,
    *,
    latents: CountOrZero = 128,
    width: CountOrZero = 128,
    encoder_depth: Count = 4,
    decoder_depth: Count = 3,
    hidden: Count = 128,
    kl_weight: PositiveOrZero = 1.0,
    floor: Share = 0.1,
    smooth: bool = False,
    by_class: bool = False,
    samples: CountOrZero = 0,
    weighted: bool = False,
    loss: Loss | None = None,
) -> Method:
    """Predict a distribution of each target from the mean of the encoded support, without an inner loop.

    ``r = mean_i e([x_i, y_i])``, ``z ~ N(μ, σ²)`` of ``mean_i l([x_i, y_i])``, ``(m, s) = d([x, r, z])``,
    ``p(y | x) = N(m, (0.1 + 0.9 softplus(s))²)``. Objective, over targets T that are the query and the support:
    ``mean_T −log p(y | x) + KL(q(z | T) ‖ q(z | S))/|T|`` with z of q(z | T), the variational bound; without z (CNP)
    the likelihood itself. e and l are perceptrons whose last layer is linear, l followed by a ReLU layer.

    As the authors' notebooks have it: in meta-training z is drawn from the posterior that has seen the query, in tests
    from the support's own, which is the same network. There it is its mean, unless it is sampled, see
    ``Method.adapt``. They draw the number of support points anew at each meta-step, for which there is
    :class:`~fewstep.data.FewerShots`; their other latent process, without r, is ``width=0``. A class label is an output
    like others, given a ``loss`` of classes, or says whose mean a row belongs to (``by_class``), as in the paper's
    classifier: r is then the means of all classes in their order, so that other ways need another network. What is
    published of regression are pictures; of that classifier, on Omniglot, 95.3 % and 98.5 % in five ways (from memory,
    unchecked).

    With ``samples`` the objective is the likelihood of the query itself, by so many codes of the support's own
    distribution, as Foong et al. (2020) train: :class:`~fewstep.core.Mixture`, which also says what ``weighted`` is, a
    variant of ours.

    Args:
        inputs: entries of an input row.
        outputs: entries of a label row: targets, or ways.
        latents: width of z; 0: none (CNP).
        width: of r; 0: none.
        encoder_depth: layers of e, and of l.
        decoder_depth: layers of d.
        hidden: units of every hidden layer, and what l ends with.
        kl_weight: of the divergence, in the bound; other weights than 1 are no bound.
        floor: least deviation of a target, between 0 and 1, in units of y.
        smooth: GELU in place of ReLU, a variant of ours: on sines and lines a fraction of the meta-steps is enough.
        by_class: encode each class apart; classes alone have it.
        samples: codes a task in meta-training; 0: one of the posterior, and the bound.
        weighted: the samples count by their likelihood on the support, in meta-training and in predictions.
        loss: of rows, whose predictions have one number an output; the likelihood when omitted.

    Raises:
        ValueError: for ``by_class`` without a loss of classes, samples without codes, or weights without samples.

    Example:
        >>> method = cnp(inputs=1, outputs=1, width=16, hidden=16)
        >>> points = method.adapt(sines.support)  # no steps: a context for each of four tasks
        >>> mean, deviation = method.learner.loss.readout(method.predict(points, sines.query))
        >>> mean.shape, deviation.shape
        (torch.Size([4, 10, 1]), torch.Size([4, 10, 1]))
    """
    if by_class and loss is None:
        raise ValueError("neural_process: by_class is for rows that have classes: give a loss of classes.")
    if (samples and not latents) or (weighted and not samples):
        raise ValueError(
            "neural_process: samples are of codes, and weights are of samples: "
            f"got latents={latents}, samples={samples}, weighted={weighted}."
        )
    perceptron = partial(mlp, activation=nn.GELU if smooth else nn.ReLU)
    inner = [hidden] * (encoder_depth - 1)
    read, classes = (inputs, outputs) if by_class else (inputs + outputs, 1)
    encoder = perceptron((read, *inner, width)) if width else None
    latent = perceptron((read, *inner, hidden)) if latents else None
    moments = perceptron((classes * hidden, (hidden + latents) // 2, 2 * latents)) if latents else None
    numbers = outputs if loss else 2 * outputs
    network = perceptron((inputs, *[hidden] * (decoder_depth - 1), numbers), context=classes * width + latents)
    start = Encoded(encoder, latent, moments, latents, kl_weight, by_class)
    learner = Learner(network, start, [], loss=loss or normal_regression(floor=floor))
    return Method(learner, Mixture(samples, weighted=weighted) if samples else Backprop(support_rows=True))


cnp = partial(neural_process, latents=0)
"""The conditional neural process: :func:`neural_process` without a latent code, and its other arguments."""
