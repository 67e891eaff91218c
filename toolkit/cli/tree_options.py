"""The options by which a sender chooses what of a tree is sent, and `--dry-run`, which lists it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import typer

from toolkit.cli.command import flag
from toolkit.cli.help import is_typed
from toolkit.cli.options import FILES, PreserveWords
from toolkit.cli.output import print_json, print_result, print_status
from toolkit.errors import ExitCode, UsageError, printable
from toolkit.transfer import Comparison, SendOptions
from toolkit.transfer.attributes import parse_preserve
from toolkit.transfer.manifest import Entry, EntryKind
from toolkit.transfer.names import display_name
from toolkit.transfer.scan import SkippedEntry, check_sources, scan
from toolkit.transfer.selection import LinkChoice, Selection, exclude
from toolkit.transfer.source_tree import SourceDirectories
from toolkit.units import format_size

MAX_SHOWN = 1 << 16  # characters of a path


@dataclass(frozen=True, slots=True)
class TreeArguments:
    """What `send`, `tcp-send` and `udp-send` accept to choose what of a directory they send."""

    update: Annotated[
        bool,
        flag("--update", "-u", text="Skip files that the receiver has, with the same size and time.", panel=FILES),
    ] = False
    checksum: Annotated[
        bool, flag("--checksum", text="Compare sizes and digests, not times; implies --update.", panel=FILES)
    ] = False
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Leave out what matches, as in .gitignore: '*.o', build/, /dist. May be repeated.",
            rich_help_panel=FILES,
        ),
    ] = None
    links: Annotated[
        bool, flag("--links", "-l", text="Send symbolic links as links, if they stay in their tree.", panel=FILES)
    ] = False
    copy_links: Annotated[
        bool, flag("--copy-links", "-L", text="Follow symbolic links: send what they lead to.", panel=FILES)
    ] = False
    sparse: Annotated[
        bool,
        flag("--sparse", text="Believe any file system where it reports holes, and read none.", panel=FILES),
    ] = False
    preserve: PreserveWords = None
    dry_run: Annotated[
        bool, flag("--dry-run", "-n", text="List what would be sent, and do not connect.", panel=FILES)
    ] = False

    @property
    def comparison(self) -> Comparison | None:
        """How the receiver recognises files that it has."""
        if self.checksum:
            return Comparison.DIGEST
        return Comparison.TIME if self.update else None

    @property
    def selection(self) -> Selection:
        """What of a directory is sent. Raises UsageError."""
        if self.links and self.copy_links:
            raise UsageError("--links and --copy-links exclude each other: send links, or what they lead to")
        links = LinkChoice.SEND if self.links else LinkChoice.FOLLOW if self.copy_links else LinkChoice.SKIP
        preserve = parse_preserve(self.preserve)
        return Selection(exclude(self.exclude or ()), links, trusts_holes=self.sparse, preserve=preserve)


def list_files(sources: Sequence[str], options: SendOptions, *, json: bool, quiet: bool) -> int:
    """Print a line for each file and directory that `sources` hold, and why others are skipped; the exit code.

    The receiver is not asked, so whether it has a file or refuses it is unknown. Raises UsageError.
    """
    skipped: list[SkippedEntry] = []
    directories = SourceDirectories(follows_links=options.selection.links is LinkChoice.FOLLOW)
    directories.takes_links = True
    files = size_bytes = 0
    try:
        roots = check_sources(sources, options.recursive, options.stream_name)
        for source in scan(roots, directories, skipped.append, options.selection):
            entry = source.entry
            files += entry.kind is EntryKind.FILE
            size_bytes += entry.size_bytes or 0
            if not json and not quiet:
                print_result(_line(entry))
    finally:
        directories.close()
    if json:
        names = [display_name(one.path) for one in skipped]
        print_json("dry-run", {"files": files, "bytes": size_bytes, "skipped": names})
    elif not quiet:
        print_result(f"would send {files} {'file' if files == 1 else 'files'}, {format_size(size_bytes)}")
    for one in skipped:
        print_status(f"{'failed' if one.is_failure else 'skipped'} {printable(display_name(one.path))}: {one.reason}")
    if any(one.is_failure for one in skipped):
        return ExitCode.FAILED
    return ExitCode.INCOMPLETE if skipped else ExitCode.OK


def _line(entry: Entry) -> str:
    name = printable(entry.name, MAX_SHOWN)
    if entry.kind is EntryKind.DIRECTORY:
        return f"{'':>12}  {name}/"
    if entry.kind is EntryKind.LINK:
        return f"{'link':>12}  {name} -> {printable(display_name(entry.target), MAX_SHOWN)}"
    return f"{'stream' if entry.size_bytes is None else format_size(entry.size_bytes):>12}  {name}"


def check_tree_options(arguments: TreeArguments, recursive: bool) -> None:
    """Raises UsageError for options that would have no effect."""
    of_directories = ("exclude", "links", "copy_links")
    if not recursive and any(getattr(arguments, name) and is_typed(name) for name in of_directories):
        raise UsageError("--exclude, --links and --copy-links choose what of a directory is sent: use them with -r")
