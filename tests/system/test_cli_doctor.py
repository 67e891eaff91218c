"""`nettool doctor` on this machine, whatever it can do."""

import json

import pytest

from tests.support.cli_process import nettool

pytestmark = pytest.mark.usefixtures("warm")


def test_this_machine_and_the_path_to_itself_are_examined() -> None:
    ended = nettool("doctor", "--json", "127.0.0.1")
    assert (ended.code, ended.stderr) == (0, "")
    fields = json.loads(ended.stdout)
    found = {capability["name"]: capability for capability in fields["capabilities"]}
    assert fields["host"] == "127.0.0.1"
    assert {"processors", "UDP offloads", "namespaces"} <= found.keys()
    assert {"path RTT", "path MTU"} <= found.keys() or "not measured" in found["path"]["found"]
    assert all(capability["found"] for capability in found.values())


def test_a_host_without_a_name_is_an_error() -> None:
    ended = nettool("doctor", "nowhere.invalid")
    assert ended.code == 3
    assert "nowhere.invalid" in ended.stderr
