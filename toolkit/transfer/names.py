"""Which names a receiver accepts: none that leaves its directory, controls a terminal, or configures a program.

On the wire a name is a relative path in bytes, with `/` between components. The receiver accepts or refuses a name;
it never repairs one, because a repaired name may be that of another file.

Two rules apply to the first component only, because only that lands in the receiver's directory itself:

- A leading dot hides a file, and configures programs: `.bashrc`, `.ssh/authorized_keys`. The user has to ask for such
  names. Below a directory that the sender names visibly, they belong to its content, as in `project/.gitignore`.
- A leading `-` turns a name into an option of `rm *`. In a directory below, `rm d/*` gives the name a prefix.
"""

import re

MAX_COMPONENT_BYTES = 255  # NAME_MAX of every common file system
MAX_PATH_BYTES = 4000  # leaves room for the receiving directory in PATH_MAX (4096)
MAX_COMPONENTS = 128

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")  # C0, DEL and C1: Unicode category Cc


def display_name(path: bytes) -> str:
    """The path as text; bytes that are not UTF-8 become lone surrogates (PEP 383)."""
    return path.decode("utf-8", "surrogateescape")


def refusal_reason_untrusted(path: bytes, dotfiles: bool) -> str | None:
    """Why the receiver refuses this path, without any part of the path itself; None if it accepts the path.

    dotfiles: whether the first component may begin with a dot
    """
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
        if len(component) > MAX_COMPONENT_BYTES:
            return f"the name is longer than {MAX_COMPONENT_BYTES} bytes"
    if path.startswith(b"-"):
        return "the name begins with -, which programs read as an option"
    if path.startswith(b".") and not dotfiles:
        return "the name begins with a dot; the receiver accepts it only with --dotfiles"
    return None
