"""A handshake in memory, which loads what a real one needs."""

import subprocess
import sys

import pytest

from toolkit.security.admission import Method
from toolkit.security.rehearsal import rehearse

SECOND_HANDSHAKE_IMPORTS = """
import sys
from toolkit.security.admission import Method
from toolkit.security.rehearsal import rehearse
rehearse(Method({method}))
loaded = set(sys.modules)
rehearse.__wrapped__(Method({method}))
print(*sorted(set(sys.modules) - loaded))
"""


@pytest.mark.parametrize("method", list(Method))
def test_after_it_a_handshake_loads_nothing(method: Method) -> None:
    program = SECOND_HANDSHAKE_IMPORTS.format(method=int(method))
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout == "\n"


@pytest.mark.parametrize("method", list(Method))
def test_only_the_first_of_a_method_does_anything(method: Method, monkeypatch: pytest.MonkeyPatch) -> None:
    rehearse(method)
    monkeypatch.setattr("toolkit.security.rehearsal.Initiator", None)
    rehearse(method)
