"""Models on the Hugging Face Hub, by its own conventions: a file of the model, and a card."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewstep.data.storage.files import write_atomically
from fewstep.estimators.base import Estimator
from fewstep.estimators.card import model_card
from fewstep.estimators.load import load
from fewstep.estimators.sharing import told_by
from fewstep.experiments.model_file import SUFFIX

if TYPE_CHECKING:
    ModelHubMixin: Any = object
else:
    try:
        from huggingface_hub import ModelHubMixin
    except ImportError as error:
        raise ImportError("models on the Hub need huggingface_hub: pip install 'fewstep[hub]'") from error

FILE = f"model{SUFFIX}"
"""Of a model in its repository."""


class HubModel(ModelHubMixin, library_name="fewstep"):  # type: ignore[call-arg, misc]
    """An estimator in a repository of the Hub, or in a folder with the files of one.

    ``HubModel(estimator).push_to_hub("me/owls")``, and ``HubModel.from_pretrained("me/owls").estimator``. Everything
    else is huggingface_hub's: tokens, revisions, caches, private repositories.

    Args:
        estimator: a :class:`~fewstep.FewShotClassifier` or :class:`~fewstep.FewShotRegressor`, fitted or not.
        licence: under which others may use it, in words.

    Example:
        >>> centred = FewShotClassifier().fit([[0.0, 1.0], [1.0, 0.0]], ["up", "right"])
        >>> HubModel(centred).save_pretrained("owls")
        >>> HubModel.from_pretrained("owls").estimator.predict([[0.0, 3.0]]).tolist()
        ['up']
    """

    def __init__(self, estimator: Estimator, licence: str = "") -> None:
        self.estimator, self.licence = estimator, licence

    _pushing = False

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Upload it with its card, see huggingface_hub's ``ModelHubMixin.push_to_hub``."""
        self._pushing = True
        try:
            return super().push_to_hub(repo_id, **options)  # type: ignore[no-any-return]
        finally:
            self._pushing = False

    def _save_pretrained(self, save_directory: Path) -> None:
        file = self.estimator.save(save_directory / FILE, licence=self.licence)
        told = told_by(file)
        # What is uploaded lies in a folder OWNER/NAME, by which others will ask for it.
        name = "/".join(save_directory.parts[-2:]) if self._pushing else save_directory.name
        opening = [
            "from fewstep.estimators.hub import HubModel",
            f'model = HubModel.from_pretrained("{name}").estimator',
        ]
        write_atomically(save_directory / "README.md", model_card(told, opening, name))

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **options: Any) -> HubModel:
        file = Path(model_id) / FILE
        if not Path(model_id).is_dir():
            from huggingface_hub import hf_hub_download

            known = ("revision", "cache_dir", "force_download", "local_files_only", "token")
            file = Path(hf_hub_download(model_id, FILE, **{name: options[name] for name in known}))
        return cls(load(file), told_by(file).get("licence", ""))
