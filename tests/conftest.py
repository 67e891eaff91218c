"""Settings for every test."""

import os
import signal
import tempfile

# A shell without job control starts background jobs with SIGINT ignored, and programs inherit that. Tests interrupt the
# programs that they start, so these programs must begin with the default action.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Clients keep the tokens of servers in the user's cache directory. Tests have one of their own.
_CACHE = tempfile.TemporaryDirectory(prefix="nettool-tests-")
os.environ["XDG_CACHE_HOME"] = _CACHE.name
