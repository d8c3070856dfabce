"""Keys of DeepMind's records, which hold the class of an image."""

from urllib.parse import unquote

from fewstep.data.features.store import Part


def class_of(key: str, where: str) -> str:
    """The class in a key of DeepMind's, "<anything>-<class>-<class>_<image>".

    Raises:
        ValueError: if the key is of another form.
    """
    if (found := _class_in(key)) is None:
        raise ValueError(f"{where}: keys must be '<anything>-<class>-<class>_<image>', one is {key!r:.80}")
    return found


def _class_in(key: str) -> str | None:
    parts = key.split("-")
    return unquote(parts[1]) if len(parts) == 3 and parts[1] == parts[2].split("_")[0] else None


def keys_of(part: Part) -> list[str]:
    """Keys of DeepMind's form for the positions of a part: its own where they are, else made ones."""
    labels = part.labels.tolist()
    keys = [""] * len(labels) if part.ordered_keys is None else part.ordered_keys.tolist()
    for i, label in enumerate(labels):
        if _class_in(keys[i]) != label:
            code = label.replace("%", "%25").replace("-", "%2D").replace("_", "%5F")
            keys[i] = f"{i}-{code}-{code}_{i}"
    return keys
