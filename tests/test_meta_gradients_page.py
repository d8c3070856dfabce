"""docs/meta-gradients.md: its code runs, prints what stands there, and its picture is drawn from it."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pages
import pytest

from fewstep import algorithms

DOCS = pages.ROOT / "docs"
PAGE = DOCS / "meta-gradients.md"
BLOCKS = pages.blocks(PAGE.read_text(encoding="utf-8"))


def test_every_block_prints_what_the_page_shows() -> None:
    space: dict[str, Any] = {}
    for number, block in enumerate(BLOCKS, 1):
        printed = pages.run(block.code, space, f"{PAGE.name}, block {number}")
        assert pages.agree(printed, block.shown), (
            f"block {number} of {PAGE.name} prints\n{printed}\nbut the page shows\n{block.shown}\n"
            f"If that is right: python tests/pages.py docs/{PAGE.name}"
        )


def test_every_algorithm_is_on_the_page() -> None:
    """Those that need no classes by their Δ on the sine curves, the others by name."""
    code, text = "".join(block.code for block in BLOCKS), PAGE.read_text(encoding="utf-8")
    named = {
        "protonet": "Prototypical networks",
        "protomaml": "Proto-MAML",
        "r2d2": "R2-D2",
        "matching": "Matching and Relation networks",
        "relation": "Matching and Relation networks",
        "tpn": "TPN",
        "snail": "SNAIL",
        "csn": "CSN",
        "deml": "DEML",
        "tadam": "TADAM",
        "ppa": "PPA",
        "dfsl": "DFSL",
        "gaussian_prior": "a Gaussian prior",
        "residual_prototypes": "residual prototypes",
        "bayesian_maml": "Bayesian MAML",
        "cavia": "CAVIA",
        "t_net": "T-net",
        "mt_net": "MT-net",
        "maml_plus_plus": "MAML++",
        "cnp": "of neural\nprocesses",
        "neural_process": "of neural\nprocesses",
        "llama": "LLAMA",
        "platipus": "PLATIPUS",
        "leo": "LEO",
        "leo_network": "LEO for whole networks",
    }
    for name in algorithms.__all__:
        assert named[name] in text if name in named else f"{name}(network" in code, name
    (curves,) = [block for block in BLOCKS if block.code.count("methods = {")]
    for name in ("FOMAML", "MAML", "MAML++", "iMAML", "Reptile", "Chaser", "ANIL", "MetaSGD", "MetaCurv", "MetaLSTM"):
        assert f"\n{name} " in curves.shown, name


def test_no_statement_of_the_page_is_false() -> None:
    text = "".join(block.shown for block in BLOCKS)
    assert text.count("True") == 20
    assert "False" not in text
    assert len(re.findall("^```text$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)) == sum(
        bool(block.shown) for block in BLOCKS
    ), "an output does not stand right after the code that prints it"


@pytest.mark.parametrize(
    ("printed", "shown", "equal"),
    [
        ("a  0.123 True\n", "a 0.123 True", True),
        ("0.124", "0.123", True),  # one unit of the last place
        ("0.126", "0.123", False),
        ("1.234e-05", "1.236e-05", True),
        ("1.3e-05", "1.1e-05", False),
        ("1.3e-05", "1.3e-04", False),
        ("-0.500", "0.500", False),
        ("K = 6", "K = 5", False),  # whole numbers exactly
        ("a 1.0 2.0", "a 1.0", False),
        ("b 1.0", "a 1.0", False),
        ("False", "True", False),
        ("nan", "0.1", False),
        ("", "1.0", False),
    ],
)
def test_outputs_agree_to_the_tolerance_of_the_page(printed: str, shown: str, equal: bool) -> None:
    assert pages.agree(printed, shown) is equal


def test_pages_are_rewritten() -> None:
    page = "Text.\n\n```python\nx = 1\n```\n\n```python\nprint(x + 1)\n```\n\n```text\n3\n```\n\nMore.\n"
    assert pages.rewritten(page, "page") == page.replace("3", "2")


def test_the_picture_is_drawn_from_the_page(tmp_path: Path) -> None:
    code = f"import meta_gradients, pathlib; meta_gradients.draw(pathlib.Path({str(tmp_path)!r}) / 'picture.png')"
    subprocess.run([sys.executable, "-c", code], cwd=DOCS, check=True)
    assert (tmp_path / "picture.png").read_bytes()[:4] == b"\x89PNG"
    (named,) = re.findall(r"\]\((images/.*?)\)", PAGE.read_text(encoding="utf-8"))
    assert (DOCS / named).stat().st_size < 150_000
