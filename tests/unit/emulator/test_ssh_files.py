"""ssh behind a user's link finds its configuration, as files of that user."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

_SCRIPT = """
import json, os, sys
from pathlib import Path
from toolkit.emulator import namespaces, ssh_files
from toolkit.errors import NettoolError

folder = ssh_files.SSH_FOLDER = Path(sys.argv[1])
try:
    namespaces.enter_private_namespaces()
except NettoolError as error:
    sys.exit(str(error))
ssh_files.copy_ssh_configuration()
found = {str(path.relative_to(folder)): path for path in folder.rglob("*")}
print(json.dumps({
    name: [path.is_file() and path.read_text(), path.stat().st_mode & 0o777, path.stat().st_uid == os.geteuid()]
    for name, path in found.items()
}))
"""


def seen_behind_a_link(folder: Path) -> dict[str, list[object]]:
    """Return text, mode and whether the user owns it, of all files that a program behind a link sees in `folder`."""
    run = subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(folder)], capture_output=True, text=True, timeout=60, check=False
    )
    if run.returncode == 1 and "namespaces" in run.stderr:
        pytest.skip(run.stderr.strip())
    assert run.returncode == 0, run.stderr
    seen: dict[str, list[object]] = json.loads(run.stdout)
    return seen


def test_the_files_are_copies_that_the_user_owns(tmp_path: Path) -> None:
    included = tmp_path / "ssh_config.d"
    included.mkdir()
    for path, text in ((tmp_path / "ssh_config", "Include\n"), (included / "20.conf", "ForwardX11 no\n")):
        path.write_text(text)
        path.chmod(0o666)  # ssh refuses what others may write
        if os.geteuid() == 0:
            os.chown(path, 65534, 65534)
    assert seen_behind_a_link(tmp_path) == {
        "ssh_config": ["Include\n", 0o644, True],
        "ssh_config.d": [False, 0o755, True],
        "ssh_config.d/20.conf": ["ForwardX11 no\n", 0o644, True],
    }
    assert (tmp_path / "ssh_config").stat().st_mode & 0o777 == 0o666


def test_a_system_without_ssh_is_left_alone(tmp_path: Path) -> None:
    assert seen_behind_a_link(tmp_path / "none") == {}
