"""Whole sessions with random trees, over a channel that reorders content and messages."""

import os
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.background import Background
from tests.support.repetitions import examples
from tests.support.sessions import channel_pair
from toolkit.transfer import SendOptions, receive, send
from toolkit.transfer.receiver import ReceiveOptions

names = st.text(st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="/"), min_size=1, max_size=30).filter(
    lambda name: name not in (".", "..")
)
contents = st.binary(max_size=200) | st.builds(
    lambda seed, times: seed * times, st.binary(min_size=1, max_size=5), st.integers(0, 200_000)
)
trees = st.recursive(contents, lambda below: st.dictionaries(names, below, max_size=4), max_leaves=12).filter(
    lambda tree: isinstance(tree, dict)
)


def build(path: Path, tree: bytes | dict[str, object]) -> None:
    if isinstance(tree, bytes):
        path.write_bytes(tree)
        return
    path.mkdir()
    for name, below in tree.items():
        assert isinstance(below, bytes | dict)
        build(path / name, below)


def read(path: Path) -> bytes | dict[str, object]:
    return {below.name: read(below) for below in path.iterdir()} if path.is_dir() else path.read_bytes()


@settings(max_examples=examples(40), deadline=None)
@given(trees, st.integers(0, 2**32), st.sampled_from(["xxh3-128", "blake3"]), st.booleans())
def test_every_tree_arrives(tree: dict[str, object], seed: int, digest: str, overwrite: bool) -> None:
    with tempfile.TemporaryDirectory() as scratch, channel_pair(shuffle_seed=seed) as (sender, receiver):
        root = Path(scratch)
        (root / "received").mkdir()
        build(root / "sent", tree)
        options = ReceiveOptions(overwrite=overwrite)
        received = Background(lambda: receive(receiver, root / "received", options))
        sent = send(sender, [root / "sent"], SendOptions(digest=digest, recursive=True))
        result = received.outcome()
        assert (sent.files, sent.digest) == (result.files, result.digest)
        assert sent.files == sum(len(files) for _, _, files in os.walk(root / "sent"))
        assert read(root / "received" / "sent") == tree
