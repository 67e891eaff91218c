"""A bounded run of every fuzzer: its corpus, mutations of it with a fixed seed, and a few thousand runs of atheris.

`make fuzz` runs longer, and with new seeds. CONTRIBUTING.md says what to do with what it finds.
"""

import importlib.util
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.fuzz.corpus import FOLDER, HARNESSES, ROOT, inputs, mutations, unpack
from tests.support.background import PATIENCE_S

SEED = 20_261_129
MUTATIONS = {"security": 60, "tcp-handshake": 150, "connection": 150}
OTHER_MUTATIONS = 400
ATHERIS_RUNS = 1000
MAX_CPU_S = 2.0
"""Of one input. The slowest take some ten milliseconds."""
MAX_RSS_MB = 400
MAX_CORPUS_BYTES = 300_000

each = pytest.mark.parametrize("name", sorted(HARNESSES))


def check(name: str, data: bytes) -> bool:
    """Check one input, and that it does not take long."""
    begun_s = time.thread_time()
    try:
        taken = HARNESSES[name].check(data)
    except Exception as error:
        raise AssertionError(f"{name} fails, seed {SEED}, input {data.hex()}") from error
    assert time.thread_time() - begun_s < MAX_CPU_S, f"{name} is slow, input {data.hex()}"
    return taken


@each
def test_the_corpus_passes(name: str) -> None:
    taken = [check(name, data) for data in inputs(name)]
    assert any(taken), "the decoder takes none of the seeds"
    assert not check(name, b"\xff")


@each
def test_mutations_of_the_corpus_pass(name: str) -> None:
    taken = [check(name, data) for data in mutations(HARNESSES[name], MUTATIONS.get(name, OTHER_MUTATIONS), SEED)]
    assert any(taken)
    assert not all(taken)


@pytest.mark.long
def test_atheris_finds_nothing(tmp_path: Path) -> None:
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("atheris is not installed (it belongs to the extra `dev`)")
    for number, name in enumerate(HARNESSES):
        unpack(name, tmp_path / name)
        (tmp_path / "all").mkdir(exist_ok=True)
        for path in (tmp_path / name).iterdir():
            (tmp_path / "all" / f"{name}-{path.name}").write_bytes(bytes([number]) + path.read_bytes())
    options = [f"-runs={ATHERIS_RUNS}", f"-seed={SEED}", "-timeout=20", f"-rss_limit_mb={MAX_RSS_MB}", "-max_len=8192"]
    command = [sys.executable, "-m", "tests.fuzz.run", "all", *options, f"-artifact_prefix={tmp_path}/", "all"]
    command[-1] = str(tmp_path / "all")
    # The peak memory of a process begins with that of the process that forked it: a shell's instead of pytest's.
    command = ["sh", "-c", '"$@"; exit $?', "sh", *command]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=2 * PATIENCE_S, check=False)
    assert ended.returncode == 0, f"seed {SEED}\n{ended.stderr[-4000:]}"
    done = re.search(r"Done (\d+) runs", ended.stderr)
    assert done is not None
    assert int(done[1]) >= ATHERIS_RUNS  # it ends after a whole round of mutations


def test_the_corpus_is_small_and_belongs_to_the_harnesses() -> None:
    files = list(FOLDER.glob("*"))
    assert {path.stem for path in files} <= set(HARNESSES)
    assert sum(path.stat().st_size for path in files) < MAX_CORPUS_BYTES
