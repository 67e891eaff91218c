"""HTML that cannot be forgotten to be escaped: text becomes markup only through `element`, and is escaped there."""

from html import escape

VOID = frozenset({"meta", "link", "br", "hr"})


class Html(str):
    """Markup; any other string is text."""

    __slots__ = ()


def element(name: str, /, *children: str, **attributes: str | bool | None) -> Html:
    """An element. Attributes: `class_` for `class`, `data_v` for `data-v`; True has no value, None is none."""
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


def join(*children: str, separator: str = "") -> Html:
    """Markup and text one after the other."""
    return Html(separator.join(c if isinstance(c, Html) else escape(c, quote=False) for c in children))
