"""The yardstick of loopback: copies the file as cp does, without a network, from and to where transports do.

Speaks `toolkit.comparison.worker_protocol`. It reads and writes blocks of 256 KiB, as coreutils does where it cannot
let the kernel copy, into the storage that the transports reuse: cp itself would begin with a new file. One processor
cannot be expected to receive a file faster. The copy is compared after the clock has stopped.
"""

import filecmp
import os
import time
from pathlib import Path

from toolkit.comparison.endpoint_result import EndpointResult
from toolkit.comparison.worker_protocol import (
    SendJob,
    failure,
    peak_memory_bytes,
    read_job,
    report,
    report_port,
    wait_for_go,
)
from toolkit.errors import NettoolError, TransferError
from toolkit.units import rate_of

_BLOCK_BYTES = 256 << 10


def main() -> None:
    """Read the job, do it, and report the result. The receiver has nothing to do."""
    try:
        job = read_job()
        if isinstance(job, SendJob):
            report(_copy(job))
        else:
            report_port(0)
            report(EndpointResult())
    except NettoolError as error:
        report(failure(error))


def _copy(job: SendJob) -> EndpointResult:
    assert job.payload is not None
    assert job.directory is not None
    source, target = Path(job.payload), Path(job.directory) / Path(job.payload).name
    block = memoryview(bytearray(_BLOCK_BYTES))
    wait_for_go()
    cpu_s, started_s = time.process_time(), time.monotonic()
    try:
        with source.open("rb", buffering=0) as reader, os.fdopen(os.open(target, os.O_RDWR), "wb", 0) as writer:
            while count := reader.readinto(block):
                written = writer.write(block[:count])
                while written < count:
                    written += writer.write(block[written:count])
        seconds, cpu_seconds = time.monotonic() - started_s, time.process_time() - cpu_s
        is_same = filecmp.cmp(source, target, shallow=False)
    except OSError as error:
        raise TransferError(f"cannot copy the file: {error.strerror}") from None
    if not is_same:
        raise TransferError("the copy differs from the file")
    return EndpointResult(
        size_bytes=job.payload_bytes,
        seconds=seconds,
        goodput_bps=rate_of(job.payload_bytes, seconds),
        cpu_seconds=cpu_seconds,
        peak_memory_bytes=peak_memory_bytes(),
        started_s=started_s,
        is_delivered=True,
    )


if __name__ == "__main__":
    main()
