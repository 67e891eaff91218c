"""What of a tree is sent: excluded names, and symbolic links."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from toolkit.errors import UsageError, printable
from toolkit.transfer.attributes import Preserve
from toolkit.transfer.names import display_name


class LinkChoice(Enum):
    """What becomes of a symbolic link in a tree. One that the user names as a source is always followed."""

    SKIP = "skip"
    SEND = "send"  # as a link
    FOLLOW = "follow"  # what it leads to is sent in its place


def _excludes_nothing(_path: bytes, _is_directory: bool) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Selection:
    """What of a tree is sent.

    excludes: called as `excludes(path, is_directory)` with a path relative to the source that the user named
    trusts_holes: whether holes are not read even on a file system that is not known to be right about them
    preserve: what is offered with each entry besides its permission bits and time
    """

    excludes: Callable[[bytes, bool], bool] = _excludes_nothing
    links: LinkChoice = LinkChoice.SKIP
    trusts_holes: bool = False
    preserve: Preserve = Preserve.NOTHING


EVERYTHING = Selection()


def exclude(patterns: Sequence[str]) -> Callable[[bytes, bool], bool]:
    """What the patterns exclude, which are those of a .gitignore file in the source. Raises UsageError."""
    if not patterns:
        return _excludes_nothing
    import pathspec  # takes tens of milliseconds to import

    for pattern in patterns:
        try:
            pathspec.GitIgnoreSpec.from_lines([pattern])
        except ValueError as error:
            shown = printable(pattern)
            raise UsageError(f"`exclude` {shown}: not a pattern, as .gitignore has them, for example '*.o'") from error
    matches = pathspec.GitIgnoreSpec.from_lines(patterns).match_file

    def excludes(path: bytes, is_directory: bool) -> bool:
        return matches(display_name(path) + "/" * is_directory)

    return excludes
