"""HTML construction that cannot forget to escape: only `element` turns text into markup, and it escapes everything."""

from html import escape

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
