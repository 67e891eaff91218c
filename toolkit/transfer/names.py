"""Which names a receiver accepts: none that leaves its directory, none that controls a terminal.

On the wire a name is a relative path in bytes, with `/` between components. The receiver accepts or refuses a name;
it never repairs one, because a repaired name may be that of another file.
"""

import re

MAX_COMPONENT_BYTES = 255  # NAME_MAX of every common file system
MAX_PATH_BYTES = 4000  # leaves room for the receiving directory in PATH_MAX (4096)
MAX_COMPONENTS = 128

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")  # C0, DEL and C1: Unicode category Cc


def display_name(path: bytes) -> str:
    """The path as text; bytes that are not UTF-8 become lone surrogates (PEP 383)."""
    return path.decode("utf-8", "surrogateescape")


def refusal_reason_untrusted(path: bytes) -> str | None:
    """Why the receiver refuses this path, without any part of the path itself; None if it accepts the path."""
    if not path:
        return "the name is empty"
    if len(path) > MAX_PATH_BYTES:
        return f"the path is longer than {MAX_PATH_BYTES} bytes"
    if path.startswith(b"/"):
        return "the path is absolute"
    if _CONTROL.search(display_name(path)):
        return "the name contains control characters"
    components = path.split(b"/")
    if len(components) > MAX_COMPONENTS:
        return f"the path has more than {MAX_COMPONENTS} components"
    for component in components:
        if component in (b"", b".", b".."):
            return f'the path has "{component.decode()}" as a component'
        if component.startswith(b"-"):
            return "the name begins with -, which programs read as an option"
        if len(component) > MAX_COMPONENT_BYTES:
            return f"the name is longer than {MAX_COMPONENT_BYTES} bytes"
    return None
