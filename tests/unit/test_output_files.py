"""Output files: what nettool wrote is replaced, what it did not write is kept, and no FIFO makes it wait."""

import os
from pathlib import Path

import pytest

from toolkit.errors import UsageError
from toolkit.output_files import check_output, open_output

MARK = b"made by nettool"


def write(path: Path, content: bytes) -> None:
    with open_output(path, "--log", MARK) as file:
        file.write(content)


@pytest.mark.parametrize("before", [None, b"", b"# made by nettool\n" + bytes(5000)])
def test_what_is_new_empty_or_ours_is_written(tmp_path: Path, before: bytes | None) -> None:
    path = tmp_path / "log"
    if before is not None:
        path.write_bytes(before)
    check_output(path, "--log", MARK)
    write(path, b"new")
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("content", [b"a film", bytes(5000) + MARK])
def test_what_nettool_did_not_write_is_kept(tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a message shortens a long path
    path = Path("film.mkv")
    path.write_bytes(content)
    for attempt in (lambda: check_output(path, "--log", MARK), lambda: write(path, b"new")):
        with pytest.raises(UsageError, match=r"--log film.mkv exists and nettool did not write it"):
            attempt()
    assert path.read_bytes() == content


def test_a_file_that_the_command_reads_is_kept_under_every_name(tmp_path: Path) -> None:
    path, link = tmp_path / "log", tmp_path / "link"
    path.write_bytes(MARK)
    link.symlink_to(path)
    with pytest.raises(UsageError, match="that this command reads"):
        check_output(link, "--log", MARK, inputs=["-", tmp_path / "absent", path])


def test_a_fifo_without_a_reader_is_an_error_and_one_with_a_reader_is_written(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    check_output(path, "--log", MARK)
    with pytest.raises(UsageError, match="no program reads from it"):
        write(path, b"new")
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    write(path, b"new")
    assert os.read(reader, 10) == b"new"
    os.close(reader)


def test_a_device_is_written_and_a_directory_is_an_error(tmp_path: Path) -> None:
    write(Path(os.devnull), b"new")
    for attempt in (lambda: check_output(tmp_path, "--log", MARK), lambda: write(tmp_path, b"new")):
        with pytest.raises(UsageError, match="is a directory"):
            attempt()
