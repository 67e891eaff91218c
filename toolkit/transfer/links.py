"""Symbolic links that are sent as links: which ones a receiver accepts, and how it makes them.

A link that leads out of the tree that was sent could give a stranger's name to a file of the receiver's user. The
target of a link must therefore be relative, and stay in the same directory of `--dir` as the link. It may begin with
`..` components, which lead up from the link's own directory, a real one; a later `..` could follow another link, and
lead up from wherever that leads. Each link by itself then stays in the tree, and so does any chain of them.

nettool itself follows no link below `--dir`, whoever has made it (tree.py).
"""

import os
import stat
from contextlib import suppress

from toolkit.transfer.attributes import ids_of
from toolkit.transfer.destination import ACCEPTED, UNCHANGED, RefusedEntryError
from toolkit.transfer.file_system import storage_reason
from toolkit.transfer.manifest import Entry
from toolkit.transfer.messages import EntryOutcome
from toolkit.transfer.names import has_control_characters, new_partial_name
from toolkit.transfer.tree import CHANGED_HERE, EXISTS, Tree

LEADS_OUT = "it leads out of the directory that is sent"


def refusal_reason_untrusted(path: bytes, target: bytes) -> str | None:
    """Why the receiver refuses a link at this path with this target; None if it accepts the target."""
    if has_control_characters(target):
        return "its target contains control characters"
    components = target.split(b"/")
    up = 0
    while up < len(components) and components[up] == b"..":
        up += 1
    if target.startswith(b"/") or b".." in components[up:] or up > path.count(b"/") - 1:
        return LEADS_OUT
    return None


def make_link(tree: Tree, entry: Entry, *, overwrite: bool, is_update: bool, durable: bool) -> EntryOutcome:
    """Make a link that was offered; with `overwrite` it may replace one of an earlier session.

    Raises RefusedEntryError.
    """
    if reason := refusal_reason_untrusted(entry.path, entry.target):
        raise RefusedEntryError(reason)
    *directories, name = entry.path.split(b"/")
    with tree.directory(tuple(directories)) as parent:
        try:
            existing = _link_at(parent, name)
            if existing is None:
                _make(entry, name, parent)
            elif is_update and os.readlink(name, dir_fd=parent) == entry.target:
                return UNCHANGED
            elif not overwrite:
                raise RefusedEntryError(CHANGED_HERE if is_update else EXISTS)
            else:
                tree.check_earlier(existing)
                temporary = new_partial_name()
                _make(entry, temporary, parent)
                try:
                    os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
                except BaseException:
                    with suppress(OSError):
                        os.unlink(temporary, dir_fd=parent)
                    raise
            if overwrite:
                tree.add_published(os.stat(name, dir_fd=parent, follow_symlinks=False))
            if durable:
                os.fsync(parent)
        except FileExistsError:
            raise RefusedEntryError(EXISTS) from None
        except OSError as error:
            raise RefusedEntryError(storage_reason(error)) from error
    return ACCEPTED


def _make(entry: Entry, name: bytes, directory: int) -> None:
    os.symlink(entry.target, name, dir_fd=directory)
    if entry.attributes is not None and entry.attributes.owner is not None:
        with suppress(OSError):
            uid, gid = ids_of(entry.attributes.owner)
            os.chown(name, uid, gid, dir_fd=directory, follow_symlinks=False)
    with suppress(OSError):  # some file systems keep no times of links
        os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=directory, follow_symlinks=False)


def _link_at(directory: int, name: bytes) -> os.stat_result | None:
    """The status of the link of that name, if there is one. Raises RefusedEntryError if something else has it."""
    try:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None
    if not stat.S_ISLNK(status.st_mode):
        raise RefusedEntryError("something that is no symbolic link has that name")
    return status
