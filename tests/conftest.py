"""Settings for every test."""

import gc
import signal

# A shell without job control starts background jobs with SIGINT ignored, and programs inherit that. Tests interrupt the
# programs that they start, so these programs must begin with the default action.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Exempt what exists before the first test from garbage collection, which would visit it again and again.

    Three thousand collected tests are most of all objects. Whatever a test creates is collected as usual.
    """
    gc.collect()
    gc.freeze()
