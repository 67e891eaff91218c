"""Run atheris, which is libFuzzer for Python, on one harness or on all of them.

    python -m tests.fuzz.run NAME [CORPUS FOLDERS AND OPTIONS OF libFuzzer]
    python -m tests.fuzz.run all ...

With `all`, the first byte of an input chooses the harness. Only the code of nettool is instrumented. libFuzzer writes
an input that fails to a file, whose name it prints; give this file as the only argument after NAME to run it again.
"""

import sys
from collections.abc import Callable

import atheris

with atheris.instrument_imports(include=["toolkit"]):
    from tests.fuzz.corpus import HARNESSES


def _of(name: str) -> Callable[[bytes], None]:
    if name != "all":
        check = HARNESSES[name].check
        return lambda data: void(check(data))
    every = [harness.check for harness in HARNESSES.values()]
    return lambda data: void(bool(data) and every[data[0] % len(every)](data[1:]))


def void(_result: object) -> None:
    """Drop a result: atheris takes only None and -1."""


if __name__ == "__main__":
    atheris.Setup([sys.argv[0], *sys.argv[2:]], _of(sys.argv[1]))
    atheris.Fuzz()
