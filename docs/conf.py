"""The documentation site: ``sphinx-build -W --keep-going -j 2 docs build/site``.

Pages are Markdown that GitHub shows as well. Those in ``tutorials`` are notebooks, which run when the site is built:
``jupytext --to ipynb docs/tutorials/*.md`` opens the same pages elsewhere.
"""

import os
import re
import sys
from pathlib import Path
from pydoc import locate
from typing import Annotated, Any, get_origin

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.typing import stringify_annotation

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS))
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):  # of the kernels too: pages run beside each other
    os.environ.setdefault(variable, "1")

import method_pages  # noqa: E402  (it stands beside this file)

import fewstep  # noqa: E402
from fewstep.core import ranges  # noqa: E402

project, author, copyright = "fewstep", "The fewstep developers", "The fewstep developers"
version = release = fewstep.__version__
language = "en"

# The reference is by autodoc, which imports the package, and not by sphinx-autodoc2, which reads its source: names are
# exported lazily, and some are partials or stand behind a decorator that checks arguments, so that only an import shows
# the signature that a user meets. autosummary writes a page for each package, from its __all__.
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["_build", "**.ipynb"]  # pages that were opened as notebooks
templates_path = ["_templates"]

# Markdown
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4  # those of GitHub, so that page.md#heading goes to the same place here and there
highlight_language = "none"  # most blocks without a language are commands, with comments

# Notebooks: an error is one of the build.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_in_temp = True
nb_execution_timeout = 600  # of a cell, on a machine that is busy with other things too
nb_merge_streams = True

# Reference
autosummary_ignore_module_all = False
autosummary_context = {"with_pages": method_pages.documented()}
autodoc_default_options = {"member-order": "bysource", "show-inheritance": True}
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True  # attributes are listed in a class, and not once more as its members
napoleon_attr_annotations = False

# What a page refers to must be there. Names of other projects are not linked: that would ask the network for theirs.
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?!fewstep\b).*")]

html_theme = "furo"
html_title = "fewstep"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# External links are looked up by `sphinx-build -b linkcheck docs build/links`, and by nothing that CI runs.
linkcheck_anchors = False
linkcheck_timeout = 20


PAGES = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md", "README.md": "index.md"}
"""Files of the project's root that are pages here."""

RANGES = {
    stringify_annotation(kind, "smart"): name for name, kind in vars(ranges).items() if get_origin(kind) is Annotated
}
"""Names of the ranges of numbers in ``fewstep.core.ranges``, by what a signature makes of their types."""


def links(text: str, at: Path, page: Path) -> str:
    """Relative links of a text that stands in the folder ``at``, as they are in the folder ``page`` of the site.

    A page is a page, and any other file of the project is one to download, as GitHub would show it.
    """

    def moved(found: re.Match[str]) -> str:
        name, mark, heading = found[1].partition("#")
        file = (at / name).resolve()
        if not file.exists():
            return found[0]  # a page that is written when the site is built, or a broken link, which is an error
        target = DOCS / PAGES[name] if file.parent == DOCS.parent and (name := file.name) in PAGES else file
        if DOCS not in target.parents:
            return f"](<path:{os.path.relpath(file, page)}>)"
        return f"]({os.path.relpath(target, page)}{mark}{heading})"

    return re.sub(r"\]\((?![a-z]+:|#)([^\s()]+)\)", moved, text)


def read(app: Sphinx, name: str, text: list[str]) -> None:
    """The links of a page; and in the lists of the index, for ``*``, the pages that none of them names."""
    file = Path(app.env.doc2path(name))
    if name == "index":
        others = [page.stem for page in sorted(DOCS.glob("*.md")) if page.stem not in ("index", *text[0].split())]
        text[0] = re.sub(r"^\*\n", "".join(f"{page}\n" for page in others), text[0], flags=re.M)
    if file.suffix == ".md":
        text[0] = links(text[0], file.parent, file.parent)


def included(app: Sphinx, path: Path, parent: str, text: list[str]) -> None:
    """The links of a file of the project's root, which is included in a page of ``docs``."""
    text[0] = links(text[0], DOCS / path.parent, DOCS)


def plain_signature(
    app: Sphinx, what: str, name: str, given: Any, options: Any, signature: str | None, returns: str | None
) -> Any:
    """A signature in which a range of numbers has its name: ``Count``, and not all that ``Annotated`` says."""
    for long, short in RANGES.items():
        signature = signature and signature.replace(long, short)
    return signature, returns


def plain_attributes(app: Sphinx, doctree: nodes.document) -> None:
    """The same of types of attributes, which autodoc has no event for."""
    for node in doctree.findall(addnodes.desc_annotation):
        if "Annotated[" in (text := node.astext()):
            for long, short in RANGES.items():
                text = text.replace(re.sub(r"~[\w.]*\.", "", long), short)
            node.children = [nodes.Text(text)]


def skipped(app: Sphinx, what: str, name: str, given: Any, skip: bool, options: Any) -> bool | None:
    """Methods that scikit-learn gives every estimator for the routing of metadata."""
    return True if re.fullmatch(r"set_\w+_request", name) else None


def sentence(app: Sphinx, what: str, name: str, given: Any, options: Any, lines: list[str]) -> None:
    """What stands below a constant, or a type, in the module that defines it; a package only exports it."""
    if what != "data":
        return
    short = name.rpartition(".")[2]
    for module in [known for known in sorted(sys.modules) if known.startswith("fewstep.")]:
        if short in vars(sys.modules[module]):
            lines[:] = ModuleAnalyzer.for_module(module).find_attr_docs().get(("", short), lines)


def by_its_name(app: Sphinx, env: Any, node: addnodes.pending_xref, content: nodes.Node) -> nodes.Node | None:
    """A name that a docstring or a signature gives without its package, or with the module that defines it.

    It links to where the package exports it. A name that the reference does not have is plain text, if there is such a
    thing in fewstep; a name that there is not is a warning.
    """
    target = node["reftarget"]
    if node.get("refdomain") != "py" or not re.match(r"fewstep\.|\w+$", target):
        return None
    objects, last = env.domains["py"].objects, target.rpartition(".")[2]
    found = [name for name in objects if name.rpartition(".")[2] == last and name.split(".")[-2].islower()]
    if found:
        name = min(found, key=len)
        uri = f"{app.builder.get_relative_uri(node['refdoc'], objects[name].docname)}#{objects[name].node_id}"
        return nodes.reference("", "", content, internal=True, refuri=uri, reftitle=name)
    return content if "." in target and locate(target) is not None else None


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("builder-inited", lambda app: method_pages.write(DOCS / "methods"), priority=1)
    app.connect("source-read", read)
    app.connect("include-read", included)
    app.connect("autodoc-skip-member", skipped)
    app.connect("autodoc-process-signature", plain_signature)
    app.connect("doctree-read", plain_attributes)
    app.connect("autodoc-process-docstring", sentence)
    app.connect("missing-reference", by_its_name)
