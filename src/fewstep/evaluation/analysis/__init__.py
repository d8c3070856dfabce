"""What adaptation does: codes before and after it, curvature, and how far steps reach (LEO's Figures 4 and 5)."""

from fewstep.evaluation.analysis.codes import latent_codes, principal_components, separation, tsne
from fewstep.evaluation.analysis.hessian import Spectrum, curvature, hessian_eigenvalues
from fewstep.evaluation.analysis.passage import Coordinates, Passage, in_double, passed
from fewstep.evaluation.analysis.reach import StepLengths, decoder_singular_values, step_lengths

__all__ = [
    "Coordinates",
    "Passage",
    "Spectrum",
    "StepLengths",
    "curvature",
    "decoder_singular_values",
    "hessian_eigenvalues",
    "in_double",
    "latent_codes",
    "passed",
    "principal_components",
    "separation",
    "step_lengths",
    "tsne",
]
