"""HTML construction that cannot forget to escape: only `element` turns text into markup, and it escapes everything."""

from html import escape
from pathlib import Path

from toolkit.errors import TransferError, printable_path
from toolkit.output_files import open_output

PAGE_OPTION, PAGE_MARK = "--html", b"<title>nettool: "
"""The option that names a page, and what each page has in its head; see `toolkit.output_files`."""
VOID = frozenset({"meta", "link", "br", "hr"})


class Html(str):
    """Markup. Any other string is text and gets escaped."""

    __slots__ = ()


def element(name: str, /, *children: str, **attributes: str | bool | None) -> Html:
    """One element with its children.

    Attribute names are Python names: `class_` gives `class`, `data_v` gives `data-v`. True writes the name without a
    value; False and None leave the attribute out.
    """
    parts = [f"<{name}"]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        attribute = key.rstrip("_").replace("_", "-")
        parts.append(f" {attribute}" if value is True else f' {attribute}="{escape(str(value))}"')
    parts.append(">")
    if name in VOID:
        return Html("".join(parts))
    return Html("".join(parts) + join(*children) + f"</{name}>")


def join(*children: str) -> Html:
    """Concatenate markup and escaped text."""
    return Html("".join(c if isinstance(c, Html) else escape(c, quote=False) for c in children))


def write_html(page: str, path: Path) -> None:
    """Write a page with PAGE_MARK in its head, and make its folder.

    Raises UsageError if `path` cannot be opened, or is a file that nettool did not write; TransferError if the page
    cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open_output(path, PAGE_OPTION, PAGE_MARK) as file:
            file.write(page.encode())
    except OSError as error:
        raise TransferError(f"cannot write {printable_path(path)}: {error.strerror}; choose another file") from None
