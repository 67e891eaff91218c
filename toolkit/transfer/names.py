"""Which names a receiver takes: nothing that leads out of its directory or speaks to a terminal.

A name on the wire is a relative path in bytes, its components joined by `/`. It is taken as it is or refused;
it is never repaired, because a repaired name is one that nobody asked for and may be somebody else's.
"""

import re

MAX_COMPONENT_BYTES = 255  # NAME_MAX of every common file system
MAX_PATH_BYTES = 4000  # leaves room in PATH_MAX (4096) for the directory
MAX_COMPONENTS = 128

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")  # C0, DEL and C1: Unicode category Cc


def display_name(path: bytes) -> str:
    """The name as text; bytes that are no UTF-8 become surrogates, as everywhere in Python (PEP 383)."""
    return path.decode("utf-8", "surrogateescape")


def refusal_of_untrusted(path: bytes) -> str | None:
    """Why this name is not taken, in words that hold nothing of the name itself; None when it is."""
    if not path:
        return "its name is empty"
    if len(path) > MAX_PATH_BYTES:
        return f"its path is longer than {MAX_PATH_BYTES} bytes"
    if path.startswith(b"/"):
        return "its name is an absolute path"
    if _CONTROL.search(display_name(path)):
        return "its name holds control characters"
    components = path.split(b"/")
    if len(components) > MAX_COMPONENTS:
        return f"it lies more than {MAX_COMPONENTS} directories deep"
    for component in components:
        if component in (b"", b".", b".."):
            return f'its path has "{component.decode()}" as a component'
        if component.startswith(b"-"):
            return "its name begins with -, which programs take for an option"
        if len(component) > MAX_COMPONENT_BYTES:
            return f"its name is longer than {MAX_COMPONENT_BYTES} bytes"
    return None
