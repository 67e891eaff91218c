"""What a sender does before its clock starts."""

import subprocess
import sys

SCRIPT = """
import sys
import toolkit.api.sending as sending
from toolkit.errors import UnreachableError

def connect(*_):
    print(all(name in sys.modules for name in ("toolkit.transports.udp.connect", "toolkit.transfer.sender")))
    raise UnreachableError("nobody is there")

sending.connect = connect
try:
    sending.send({"a": b"x"}, "127.0.0.1")
except UnreachableError:
    pass
"""


def test_what_it_needs_is_loaded_before_the_clock_starts() -> None:
    ended = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert ended.stdout == "True\n"
