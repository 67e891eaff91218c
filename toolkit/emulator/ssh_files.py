"""Lets ssh and scp run behind the link of an ordinary user.

In a user namespace, files of the real root belong to nobody. ssh refuses the files that /etc/ssh/ssh_config includes
unless root or the user owns them ("Bad owner or permissions"), so the commands at the ends see copies of their own.

Read: ssh_config(5) (Include), user_namespaces(7).
"""

import contextlib
import os
import tempfile
from pathlib import Path

from toolkit.emulator import namespaces

SSH_FOLDER = Path("/etc/ssh")


def copy_ssh_configuration() -> None:
    """Put copies of the readable files below /etc/ssh in their place, as this mount namespace sees it.

    Raises OSError if this system does not permit the mount.
    """
    if not SSH_FOLDER.is_dir():
        return
    folder = tempfile.mkdtemp(prefix="nettool-ssh-")
    try:
        with namespaces.temporary_files(folder):
            _copy(SSH_FOLDER, Path(folder))
            namespaces.bind(folder, SSH_FOLDER)
    finally:
        os.rmdir(folder)


def _copy(source: Path, target: Path) -> None:
    for found in source.iterdir():
        copy = target / found.name
        with contextlib.suppress(OSError):  # host keys, which only the real root may read
            if found.is_dir():
                copy.mkdir(0o755)
                _copy(found, copy)
            elif found.is_file():
                copy.write_bytes(found.read_bytes())
                copy.chmod(found.stat().st_mode & 0o755)
