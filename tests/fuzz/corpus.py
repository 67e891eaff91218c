"""The inputs of each harness: seeds from real encoders, and what fuzzing has found, in `corpus/NAME.txt`.

A line of such a file is one input in hexadecimal. `make fuzz` keeps what it finds in `.fuzz/NAME`; then

    python -m tests.fuzz.corpus NAME

adds the shortest of them to the file. Commit it. With `--unpack FOLDER`, the inputs of all harnesses are written below
a folder, and their names to standard output.
"""

import random
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.fuzz import formats, handshakes, sessions
from tests.fuzz.harness import Harness

ROOT = Path(__file__).parents[2]
FOLDER = Path(__file__).parent / "corpus"
FOUND = ROOT / ".fuzz"
MAX_INPUTS = 24
MAX_INPUT_BYTES = 1500
HARNESSES = {harness.name: harness for module in (formats, handshakes, sessions) for harness in module.HARNESSES}


@cache
def inputs(name: str) -> tuple[bytes, ...]:
    """Return the seeds of a harness, and what was found."""
    return (*HARNESSES[name].seeds(), *_found(name))


def _found(name: str) -> list[bytes]:
    path = FOLDER / f"{name}.txt"
    return [bytes.fromhex(line) for line in path.read_text("ascii").splitlines()] if path.exists() else []


def mutations(harness: Harness, count: int, seed: int) -> Iterator[bytes]:
    """Inputs with a few changes: flipped bits, bytes cut, repeated, replaced or taken from another input."""
    generator = random.Random(f"{seed} {harness.name}")
    known = inputs(harness.name)
    for _ in range(count):
        data = bytearray(generator.choice(known))
        for _ in range(generator.randint(1, 3)):
            _mutate(data, generator.choice(known), generator)
        yield bytes(data)


def _mutate(data: bytearray, other: bytes, generator: random.Random) -> None:
    at = generator.randrange(len(data) + 1)
    length = min(generator.choice((1, 1, 2, 4, 8, 32)), len(data) - at)
    match generator.randrange(6):
        case 0 | 1 if at < len(data):
            data[at] ^= 1 << generator.randrange(8)
        case 2:
            data[at : at + length] = generator.choice((bytes(length), b"\xff" * length, generator.randbytes(length)))
        case 3:
            del data[at : at + length]
        case 4:
            data[at:at] = data[at : at + length]
        case _:
            start = generator.randrange(len(other) + 1)
            data[at:at] = other[start : start + 16]


def unpack(name: str, folder: Path) -> None:
    """Write each input of a harness to a file of its own, as libFuzzer wants them."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(inputs(name)):
        (folder / f"known-{number:04}").write_bytes(data)


def _add_found(name: str) -> None:
    """Add the shortest of the inputs in `.fuzz/NAME`, where libFuzzer keeps only those that reach new code."""
    new = {path.read_bytes() for path in (FOUND / name).iterdir()} - set(inputs(name))
    short = sorted((data for data in new if len(data) <= MAX_INPUT_BYTES), key=lambda data: (len(data), data))
    kept = [*_found(name), *short][:MAX_INPUTS]
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.txt").write_text("".join(f"{data.hex()}\n" for data in kept), "ascii")


def _main(arguments: list[str]) -> None:
    if arguments[0] == "--unpack":
        for name in HARNESSES:
            unpack(name, Path(arguments[1], name))
            sys.stdout.write(f"{name}\n")
        return
    for name in arguments:
        before = len(_found(name))
        _add_found(name)
        sys.stdout.write(f"{name}: {len(_found(name)) - before} new inputs\n")


if __name__ == "__main__":
    _main(sys.argv[1:])
