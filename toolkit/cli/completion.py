"""`nettool completion`: what makes the tab key complete commands and options in a shell.

The script asks nettool itself, through an environment variable (`app.COMPLETION_VARIABLE`), what may follow. Both sides
are typer's.
"""

from enum import StrEnum
from typing import Annotated

import typer
from typer.completion import get_completion_script  # type: ignore[attr-defined]

from toolkit.cli.app import COMPLETION_VARIABLE, PROGRAM
from toolkit.cli.command import command
from toolkit.cli.options import Json
from toolkit.cli.output import print_json, print_result


class Shell(StrEnum):
    """The shells that typer has scripts for, without PowerShell."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


@command
def completion(
    shell: Annotated[Shell, typer.Argument(metavar="SHELL", help="Shell to complete in: bash, zsh or fish.")],
    json: Json = False,
) -> None:
    """Print a script that makes a shell complete nettool's commands and options.

    The shell reads the script at its start: put the first line below into ~/.bashrc, or the second one into ~/.zshrc,
    after compinit. The third is for fish, once.

    \b
    Examples:
      source <(nettool completion bash)
      source <(nettool completion zsh)
      nettool completion fish > ~/.config/fish/completions/nettool.fish
    """
    script = get_completion_script(prog_name=PROGRAM, complete_var=COMPLETION_VARIABLE, shell=shell.value)
    if json:
        print_json("completion", {"shell": shell.value, "script": script})
    else:
        print_result(script)
