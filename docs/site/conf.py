"""The settings of the site, which `make site` builds with Sphinx from README.md and docs/."""

from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent

project = "nettool"
html_title = "nettool"
extensions = ["myst_parser", "sphinx_copybutton"]
include_patterns = ["README.md", "README.ko.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/*.md"]
root_doc = "README"
myst_heading_anchors = 4
highlight_language = "none"
smartquotes = False  # commands are copied from these pages
html_theme = "furo"
html_copy_source = False
html_extra_path = ["index.html"]
pygments_style = "default"
pygments_dark_style = "github-dark"


def add_contents(_app: Any, page: str, source: list[str]) -> None:
    """Append the table of contents to the first page, which is the project's README."""
    if page == root_doc:
        source[0] += (HERE / "contents.txt").read_text("utf-8")


def set_language(_app: Any, page: str, _template: str, context: dict[str, Any], _tree: Any) -> None:
    """Mark pages in Korean as such, for browsers and screen readers."""
    if page.endswith(".ko"):
        context["language"] = "ko"


def setup(app: Any) -> None:
    app.connect("source-read", add_contents)
    app.connect("html-page-context", set_language)
