"""`nettool clean`: list and remove the unfinished files that receivers have left."""

from pathlib import Path
from typing import Annotated

import typer

from toolkit.cli.command import command, flag, option
from toolkit.cli.options import Json, Quiet
from toolkit.cli.output import print_json, print_sentences, print_status
from toolkit.errors import TransferError, UsageError, printable
from toolkit.transfer.leftovers import leftovers_below
from toolkit.units import format_seconds, format_size, parse_duration_ns, to_seconds


@command
def clean(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Directory that was received into.")],
    older_than: Annotated[
        str, option("--older-than", metavar="TIME", text="Time since a file last changed, for example 1h.")
    ] = "24h",
    dry_run: Annotated[bool, flag("--dry-run", text="List the files, and remove none.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Remove unfinished files that receivers left in DIR and below.

    A receiver keeps what has arrived of a large file, so that the sender can go on, and removes it after eight days.
    Such files, and what a killed receiver leaves, have names such as .nettool-0123456789abcdef.part. No other files are
    touched, and no symbolic links below DIR are followed.

    A large file that a receiver is writing is left alone. A small one is not: while a receiver runs, choose a time
    longer than any pause of a transfer, because a file that is removed meanwhile fails.

    \b
    Examples:
      nettool clean --dry-run incoming
      nettool clean --older-than 1h incoming
    """
    if not directory.is_dir():
        raise UsageError(f"{printable(str(directory))} is not a directory: name the one that was received into")
    older_than_s = to_seconds(parse_duration_ns(older_than))
    files, in_use, failures = [], [], 0
    try:
        for found in leftovers_below(directory, older_than_s, remove=not dry_run):
            if found.failure is not None:
                failures += 1
                print_status(f"cannot remove {printable(found.path)}: {found.failure}")
                continue
            if found.is_in_use:
                in_use.append(found.path)
                if not quiet:
                    print_status(f"left {printable(found.path)}: a receiver is writing it")
                continue
            files.append({"name": found.path, "bytes": found.size_bytes, "age_seconds": found.age_s})
            if not json and not quiet:
                verb = "found" if dry_run else "removed"
                size = format_size(found.size_bytes)
                print_sentences(f"{verb} {printable(found.path)}, {size}, unchanged for {format_seconds(found.age_s)}")
    except OSError as error:
        reason = (error.strerror or "").lower()
        raise TransferError(f"cannot read {printable(str(directory))}: {reason}") from None
    if json:
        print_json("leftovers", {"files": files, "removed": not dry_run, "in_use": in_use})
    elif not quiet and not (files or in_use or failures):
        newer = f" older than {older_than}; --older-than 0s names newer ones too" if older_than_s else ""
        print_sentences(f"no unfinished files{newer}")
    if failures:
        raise TransferError("some files could not be removed: make their directories writable and try again")
