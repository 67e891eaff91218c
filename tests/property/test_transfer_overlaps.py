"""Whatever pieces of a file a peer sends, overlapping or not: the stored file matches its digest or does not exist."""

import os
import tempfile

import xxhash
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.repetitions import examples
from toolkit.errors import ProtocolError
from toolkit.transfer.digest import ALGORITHMS
from toolkit.transfer.incoming import IncomingFiles
from toolkit.transfer.manifest import Entry, EntryKind
from toolkit.transfer.messages import EntryStatus, FileDigest, Hole
from toolkit.transfer.storage import Storage

SIZE_BYTES = 8

Piece = tuple[int, int, bool]  # offset, length, whether it is a hole

pieces = st.tuples(st.integers(0, SIZE_BYTES - 1), st.integers(1, SIZE_BYTES), st.booleans()).map(
    lambda piece: (piece[0], min(piece[1], SIZE_BYTES - piece[0]), piece[2])
)


def overlap(sent: list[Piece]) -> bool:
    """Whether some byte is sent more than once."""
    return sum(length for _, length, _ in sent) > len(
        {at for start, length, _ in sent for at in range(start, start + length)}
    )


@settings(max_examples=examples(300))
@given(st.lists(pieces, min_size=1, max_size=8), st.booleans())
@example([(4, 2, False), (5, 1, False), (6, 2, False), (0, 4, False)], True)
@example([(2, 2, False), (0, SIZE_BYTES, True)], True)
@example([(2, 2, True), (2, 1, False), (0, 2, False), (4, 4, False)], True)
@example([(2, 2, True), (3, 1, False), (0, 2, False), (4, 4, False)], True)
@example([(6, 2, False), (0, 7, False), (7, 1, False)], False)
def test_a_stored_file_matches_its_digest_whatever_overlaps(sent: list[Piece], size_is_known: bool) -> None:
    with tempfile.TemporaryDirectory() as directory:
        files = IncomingFiles(Storage(directory, overwrite=False, durable=False))
        expected = bytearray(SIZE_BYTES)
        try:
            size_bytes = SIZE_BYTES if size_is_known else None
            files.offer([Entry(EntryKind.FILE, b"a", 0o644, 0, size_bytes, 0)], ALGORITHMS[0])
            for number, (offset, length, is_hole) in enumerate(sent, 1):
                content = bytes(length) if is_hole else bytes([number]) * length
                expected[offset : offset + length] = content
                if is_hole:
                    files.write_hole(Hole(0, offset, length))
                else:
                    files.write(0, offset, memoryview(content))
            files.expect(FileDigest(0, SIZE_BYTES, xxhash.xxh3_128(expected).digest()))
            for file_id, _ in files.complete_files():
                assert files.commit(file_id).status is EntryStatus.OK
        except ProtocolError:
            assert overlap(sent)
        finally:
            files.close(complete=False)
        is_whole = not overlap(sent) and sum(length for _, length, _ in sent) == SIZE_BYTES
        assert os.listdir(directory) == (["a"] if is_whole else [])
        if is_whole:
            with open(os.path.join(directory, "a"), "rb") as file:
                assert file.read() == expected
