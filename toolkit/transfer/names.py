"""Which names a receiver accepts: none that leaves its directory, controls a terminal, or configures a program.

On the wire a name is a relative path in bytes, with `/` between components. The receiver accepts or refuses a name;
it never repairs one, because a repaired name may be that of another file.

Two rules apply to the first component only, because only that lands in the receiver's directory itself:

- A leading dot hides a file, and configures programs: `.bashrc`, `.ssh/authorized_keys`. The user has to ask for such
  names. Below a directory that the sender names visibly, they belong to its content, as in `project/.gitignore`.
- A leading `-` turns a name into an option of `rm *`. In a directory below, `rm d/*` gives the name a prefix.
"""

import hashlib
import os
import re

from toolkit.errors import UsageError, printable

MAX_COMPONENT_BYTES = 255  # NAME_MAX of every common file system
MAX_PATH_BYTES = 4000  # leaves room for the receiving directory in PATH_MAX (4096)
MAX_COMPONENTS = 128

# Characters that some file systems ignore in names (Unicode, Default_Ignorable_Code_Point; ext4 with casefold, HFS+):
# there, a name that begins with one of them and a dot is found as the hidden name.
_IGNORABLE = re.compile(
    "^[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]+"
)
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")  # C0, DEL and C1: Unicode category Cc


# Paths to which no rule below applies, if they are no longer than a component may be (and so have few components).
_ORDINARY = re.compile(rb"[0-9A-Za-z_][0-9A-Za-z_.+=,@ -]*(/[0-9A-Za-z_][0-9A-Za-z_.+=,@ -]*)*")
_PARTIAL = re.compile(rb"\.nettool-[0-9a-f]{16}\.part")


def new_partial_name() -> bytes:
    """A name for a file that is not complete yet."""
    return f".nettool-{os.urandom(8).hex()}.part".encode()


def resumable_partial_name(key: bytes, path: bytes) -> bytes:
    """The name for a file that a later session of the sender with this resume key may go on with."""
    return f".nettool-{hashlib.blake2b(path, key=key, digest_size=8).hexdigest()}.part".encode()


def is_partial(name: bytes) -> bool:
    """Whether the two functions above make such names."""
    return _PARTIAL.fullmatch(name) is not None


def display_name(path: bytes) -> str:
    """The path as text; bytes that are not UTF-8 become lone surrogates (PEP 383)."""
    return path.decode("utf-8", "surrogateescape")


def encode_name(name: str) -> bytes:
    """A name that the caller has chosen, in bytes. Raises UsageError if it holds what the system cannot encode."""
    try:
        return os.fsencode(name)
    except UnicodeEncodeError:
        raise UsageError(f"{printable(name)}: a file name cannot contain lone surrogates") from None


def encode_stream_name(name: str) -> bytes:
    """The name of standard input at the receiver, in bytes. Raises UsageError if no receiver accepts it."""
    encoded = encode_name(name)
    reason = refusal_reason_untrusted(encoded, dotfiles=True)
    if reason is None and b"/" in encoded:
        reason = "the name has a slash"
    if reason is not None:
        raise UsageError(f"{printable(name, 60) or 'no name'}: {reason}; choose another name for standard input")
    return encoded


def has_control_characters(path: bytes) -> bool:
    """Whether a path could control a terminal."""
    return _CONTROL.search(display_name(path)) is not None


def refusal_reason_untrusted(path: bytes, dotfiles: bool) -> str | None:
    """Why the receiver refuses this path, without any part of the path itself; None if it accepts the path.

    dotfiles: whether the first component may begin with a dot
    """
    if len(path) <= MAX_COMPONENT_BYTES and _ORDINARY.fullmatch(path):
        return None  # at once: a tree may have a million names
    if not path:
        return "the name is empty"
    if len(path) > MAX_PATH_BYTES:
        return f"the path is longer than {MAX_PATH_BYTES} bytes"
    if path.startswith(b"/"):
        return "the path is absolute"
    if has_control_characters(path):
        return "the name contains control characters"
    components = path.split(b"/")
    if len(components) > MAX_COMPONENTS:
        return f"the path has more than {MAX_COMPONENTS} components"
    for component in components:
        if component in (b"", b".", b".."):
            return f'the path has "{component.decode()}" as a component'
        if len(component) > MAX_COMPONENT_BYTES:
            return f"the name is longer than {MAX_COMPONENT_BYTES} bytes"
    if is_partial(components[-1]):
        return "nettool gives such names to unfinished files, and removes them"
    visible = _IGNORABLE.sub("", display_name(path))
    if visible.startswith("-"):
        return "the name begins with -, which programs read as an option"
    if visible.startswith(".") and not dotfiles:
        return "the name begins with a dot; the receiver accepts it only with `dotfiles`"
    return None
