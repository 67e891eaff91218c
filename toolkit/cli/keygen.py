"""`nettool keygen`: make a key file for both ends."""

from pathlib import Path
from typing import Annotated

import typer

from toolkit.cli.command import command
from toolkit.cli.options import Json, Quiet
from toolkit.cli.output import print_json, print_sentences
from toolkit.errors import printable
from toolkit.security.key_file import write_new_key


@command
def keygen(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Key file to create; must not exist.")],
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make a key file for two machines to share.

    Copy the file to the other machine over a channel that you trust, for example with scp, and pass --key FILE at both
    ends. Anyone who can read the file can send to that receiver.

    \b
    Examples:
      nettool keygen lab.key
      nettool recv --dir incoming --bind 0.0.0.0 --key lab.key
      nettool tcp-send --key lab.key film.mkv 192.0.2.7
      nettool keygen --json lab.key
    """
    write_new_key(file)
    if json:
        print_json("key", {"file": str(file)})
    elif not quiet:
        print_sentences(
            f"wrote {printable(str(file))}; copy it to the other machine, and use it at both ends with --key"
        )
