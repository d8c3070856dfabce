"""What classifier and regressor share: scikit-learn's ways, and checks of what they are given."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
from torch import Tensor

from fewstep.core import Batch, Method
from fewstep.core.modes import as_usual
from fewstep.core.types import Statistics
from fewstep.data.checks import check_lengths
from fewstep.data.dataset import as_tensor
from fewstep.estimators.model import Model, SimpleModel, TrainedModel
from fewstep.estimators.opened import opened
from fewstep.estimators.sharing import write
from fewstep.evaluation.simple import Simple
from fewstep.experiments.run import Run

# What users give is checked by ``fit``, in words, and scikit-learn's own checks give what it must not be.
if TYPE_CHECKING:
    Learned: TypeAlias = str | Path | Run | Method | Model | Simple | None
    Inputs: TypeAlias = Tensor | NDArray[Any] | Sequence[Any] | Any
    Device: TypeAlias = str
    Normalised: TypeAlias = Statistics | None
else:
    Learned = Inputs = Device = Normalised = Any


class Estimator(BaseEstimator, ABC):  # type: ignore[misc]
    """An estimator of scikit-learn whose ``fit`` adapts a model to a few rows.

    Arguments are stored as they are given and checked by ``fit``, as scikit-learn has it.
    """

    learns: ClassVar[str]
    """What it learns from rows, for a message."""

    model: Learned
    statistics: Normalised
    device: Device
    model_: Any
    _support: Batch

    def _error(self, message: str) -> ValueError:
        return ValueError(f"{type(self).__name__}: {message}")

    @abstractmethod
    def _default(self) -> Any:
        """What is adapted where no model is given."""

    def _resolved(self) -> Any:
        """The model, of whatever was given for it."""
        if self.statistics is not None and self.statistics not in get_args(Statistics):
            known = ", ".join(map(repr, get_args(Statistics)))
            raise self._error(f"statistics must be one of {known} or None, got {self.statistics!r}")
        if self.model is None:
            return self._default()
        if isinstance(self.model, Simple):
            return SimpleModel(self.model)
        if isinstance(self.model, Method):
            return TrainedModel(self.model)
        if isinstance(self.model, Model):
            return self.model
        if isinstance(self.model, str | Path | Run):
            return opened(self.model, self.device)
        wanted = "a run or its folder, a model's file, the name of a shipped one, a Method, a TrainedModel or None"
        raise self._error(f"model must be {wanted}; got {type(self.model).__name__}")

    def _statistics(self, model: Model) -> Statistics:
        return self.statistics or model.statistics

    def _warn_of_transduction(self, model: Model) -> None:
        learner = model.method.learner if isinstance(model, TrainedModel) else None
        if learner is not None and learner.batch_normalised and self._statistics(model) == "query":
            why = 'normalises by them. statistics="support" or "joined" does not.'
            if learner.transductive:
                why = "answers rows together by design. Ask for one row at a time, or for all that belong together."
            warnings.warn(
                f"{type(self).__name__}: what is predicted for a row will depend on the rows that are asked with it "
                f"(transductive): the method {why}",
                UserWarning,
                stacklevel=4,
            )

    # -- inputs ----------------------------------------------------------------------------------------------------

    def _inputs(self, x: Any, *, first: bool) -> NDArray[Any]:
        """Rows of numbers ``[rows, *features]``, by scikit-learn's own checks.

        Args:
            x: what a user gives.
            first: it is that of ``fit``, which later ones must be like.

        Raises:
            ValueError: for what is no array of finite real numbers.
            TypeError: for a sparse matrix.
        """
        x = rows_of_numbers(x, "X")
        # Integers become floats, but for those of images, whose scale would be lost, and for tokens.
        model = getattr(self, "model_", None)
        kept = len(getattr(x, "shape", ())) == 4 or (isinstance(model, TrainedModel) and model.tokens)
        dtype = "numeric" if kept else [np.float64, np.float32]
        given = validate_data(self, x, reset=first, dtype=dtype, allow_nd=True, ensure_all_finite=False)
        return self._finite(given, "X")

    def _finite(self, rows: NDArray[Any], name: str) -> NDArray[Any]:
        """The same rows, if all of their numbers are finite."""
        if bad := np.flatnonzero(~np.isfinite(rows.reshape(len(rows), -1)).all(1)).tolist():
            hold = f"{len(bad)} of {len(rows)} rows of {name} hold NaN or infinity"
            raise self._error(f"{hold}, the first is row {bad[0]}")
        return rows

    def _rows(self, x: NDArray[Any]) -> Tensor:
        """Rows as the model takes them."""
        try:
            rows: Tensor = self.model_.rows(x)
            if self.learns == "classes":
                check_lengths(rows, as_tensor(x), "X")
            elif rows.is_floating_point() and not bool(rows.isfinite().all()):
                raise ValueError(f"X has numbers beyond {rows.dtype}, up to {np.abs(x).max():g}: scale them")
            return rows
        except ValueError as error:
            raise self._error(str(error)) from error

    def _weights(self, sample_weight: Any, x: NDArray[Any]) -> NDArray[np.float64] | None:
        if sample_weight is None:
            return None
        weight: NDArray[np.float64] = _check_sample_weight(sample_weight, x, dtype=np.float64, ensure_non_negative=True)
        return weight

    def _query(self, x: Any) -> NDArray[Any]:
        """Rows to predict, which must be like those that were fitted."""
        check_is_fitted(self)
        return self._inputs(x, first=False)

    # -- files and pickles -----------------------------------------------------------------------------------------

    @abstractmethod
    def _begin(self, support: Batch) -> None:
        """Adapt the model to a support, a batch of one task."""

    @as_usual
    def save(self, path: str | Path, *, licence: str = "") -> Path:
        """Write the model, and what it was fitted to where it was, to one file: ``fewstep.load`` reads it.

        The file holds arrays and settings, and no code. Of the rows that it was fitted to there is what the model makes
        of them before it adapts: features, and of images themselves only where there is no extractor.

        Args:
            path: ``NAME.fewstep.safetensors``; the suffix is appended where there is none.
            licence: under which others may use it, in words.

        Returns:
            The file.

        Raises:
            ValueError: for a model that no recipe describes, such as a method of your own, and labels such as dates.
            OSError: if the file cannot be written.
        """
        fitted = hasattr(self, "model_")
        model = self.model_ if fitted else self._resolved()
        if model is None:
            raise self._error("there is no model to save: Bayesian linear regression is fitted anew to its points")
        settings = {name: value for name, value in self.get_params().items() if name not in ("model", "device")}
        if not isinstance(settings.get("random_state"), int | None):
            raise self._error("a file cannot hold random_state as an object: give a number, and fit again")
        words = {"estimator": settings, "fitted": _attributes(self) if fitted else None, "licence": licence}
        return write(path, model, _support_of(self) if fitted else {}, words)

    @as_usual
    def restore(self, tensors: Mapping[str, Tensor], words: Mapping[str, Any]) -> None:
        """Become what :meth:`save` wrote, of the file's tensors and words.

        Raises:
            ValueError: for settings or attributes that it does not have.
        """
        if unknown := words["estimator"].keys() - (self.get_params().keys() - {"model", "device"}):
            raise self._error(f"it has no settings {sorted(unknown)}")
        self.set_params(**words["estimator"])
        if (kept := words["fitted"]) is not None:
            if unknown := kept.keys() - set(_ATTRIBUTES):
                raise self._error(f"it has no attributes {sorted(unknown)}")
            for name, value in kept.items():
                setattr(self, name, _array(value) if isinstance(value, Mapping) else value)
            self.model_ = self._resolved()
            self._adapt_again(tensors)

    def _adapt_again(self, tensors: Mapping[str, Tensor]) -> None:
        x, y, weight = (tensors[f"support/{name}"] for name in Batch._fields)
        self._begin(Batch(x, y, weight))

    def __getstate__(self) -> dict[str, Any]:
        """Arrays in place of tensors, of which a pickle would name code; what is adapted is adapted again."""
        state: dict[str, Any] = dict(super().__getstate__())
        if state.pop("_support", None) is not None:
            for name in ("_point", "_functions"):
                state.pop(name, None)
            state["support"] = {name: array_of(tensor) for name, tensor in _support_of(self).items()}
        return state

    @as_usual
    def __setstate__(self, state: dict[str, Any]) -> None:
        support = state.pop("support", None)
        super().__setstate__(state)
        if support is not None:
            self._adapt_again({name: self.model_.placed(torch.from_numpy(array)) for name, array in support.items()})


def _support_of(fitted: Estimator) -> dict[str, Tensor]:
    return {f"support/{name}": tensor for name, tensor in zip(Batch._fields, fitted._support, strict=True)}


_ATTRIBUTES = ("classes_", "n_features_in_", "feature_names_in_", "_single")


def _attributes(fitted: Estimator) -> dict[str, Any]:
    """What else ``fit`` has found, in JSON's types."""
    found = {name: vars(fitted)[name] for name in _ATTRIBUTES if name in vars(fitted)}
    labels = found.get("classes_", np.empty(0))
    if not all(isinstance(label, str | int | float) for label in labels.tolist()):
        what = f"labels that are numbers or text, not {labels.dtype}"
        raise ValueError(f"{type(fitted).__name__}: a file holds {what}: fit to y.astype(str).")
    arrays = {
        name: {"kind": value.dtype.kind, "values": value.tolist()}
        for name, value in found.items()
        if isinstance(value, np.ndarray)
    }
    return found | arrays


def _array(kept: Mapping[str, Any]) -> NDArray[Any]:
    if kept["kind"] not in tuple("biufUO"):
        raise ValueError(f"labels are numbers or text, not of NumPy's kind {kept['kind']!r}")
    return np.array(kept["values"], dtype=object if kept["kind"] == "O" else None)


def array_of(given: Any) -> NDArray[Any]:
    """What a user gives, as an array; bfloat16, of which NumPy has no type, becomes float32."""
    if not isinstance(given, Tensor):
        return np.asarray(given)
    return (given.float() if given.dtype == torch.bfloat16 else given).detach().cpu().numpy()


def rows_of_numbers(given: Any, name: str) -> Any:
    """What a user gives for rows, see :func:`numbers`.

    Raises:
        ValueError: likewise, and for fewer than two axes.
    """
    given = numbers(given, name)
    if isinstance(given, np.ndarray) and given.ndim < 2:
        remedy = f"{name}.reshape(-1, 1) if it has one feature, {name}.reshape(1, -1) if it is one row"
        found = f"got {given.ndim}D array of the shape {given.shape}"
        raise ValueError(f"Expected 2D array, {found}: Reshape your data, {remedy}.")
    return given


def numbers(given: Any, name: str) -> Any:
    """What a user gives for numbers, as scikit-learn takes it; tensors and lists become arrays.

    Raises:
        ValueError: for text, dates and the like, which NumPy would turn into numbers, and for complex ones, which
            scikit-learn would print.
    """
    if given is None:
        raise ValueError(f"{name} must be numbers, but is None.")
    if isinstance(given, Tensor | list | tuple):
        given = array_of(given)
    for dtype in [given.dtype] if hasattr(given, "dtype") else getattr(given, "dtypes", ()):
        kind = _no_number(dtype)
        if kind == "complex numbers":
            raise ValueError(f"Complex data not supported: {name} must be real numbers, but holds {dtype}.")
        if kind:
            raise ValueError(f"{name} must be numbers, but holds {kind} ({dtype}): encode it as numbers first.")
    return given


def _no_number(dtype: Any) -> str:
    """What else an array, or a column of a frame, holds by its type; of NumPy's, pandas' and polars'."""
    kind = getattr(dtype, "kind", None)
    if kind == "c":
        return "complex numbers"
    if kind in ("M", "m") or getattr(dtype, "is_temporal", bool)():
        return "dates or times"
    return "text" if kind in ("U", "S") else ""
