"""QUIC by aioquic as an endpoint of a trial: one file on one stream, hashed at both ends, its digest sent back.

Speaks `toolkit.comparison.worker_protocol`. TLS is on, because QUIC has no other mode (RFC 9001). The certificate is
made for the one trial, and the client does not verify it.
"""

import asyncio
import datetime
import os
import ssl
import sys
import time
from pathlib import Path
from typing import Any

import xxhash

from toolkit.comparison.endpoint_result import EndpointResult
from toolkit.comparison.worker_protocol import (
    ReceiveJob,
    SendJob,
    failure,
    peak_memory_bytes,
    read_job,
    report,
    report_port,
    wait_for_go,
)
from toolkit.errors import NettoolError, TransferError

_ALPN = "nettool-bench"
_CHUNK_BYTES = 1 << 20
_ACCEPT_LIMIT_S = 60.0
_IDLE_LIMIT_S = 30.0
_CONNECT_LIMIT_S = 10.0


def main() -> None:
    """Read the job, do it, and report the result."""
    try:
        job = read_job()
        if isinstance(job, ReceiveJob):
            asyncio.run(_receive(job))
            return
        result = asyncio.run(_send(job))
    except NettoolError as error:
        result = failure(error)
    except OSError as error:  # ConnectionError and TimeoutError, too
        result = failure(TransferError(f"QUIC: {error or type(error).__name__}"))
    report(result)


async def _receive(job: ReceiveJob) -> None:
    from aioquic.asyncio.server import serve
    from aioquic.quic.configuration import QuicConfiguration

    assert job.directory is not None
    file_path = Path(job.directory) / "quic"
    configuration = QuicConfiguration(alpn_protocols=[_ALPN], is_client=False, idle_timeout=_IDLE_LIMIT_S)
    configuration.certificate, configuration.private_key = _certificate()
    done: asyncio.Future[EndpointResult] = asyncio.get_running_loop().create_future()
    tasks = set()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        started_s, cpu_s = time.monotonic(), time.process_time()
        digest, size_bytes = xxhash.xxh3_128(), 0
        with file_path.open("wb", buffering=0) as file:
            while data := await reader.read(_CHUNK_BYTES):
                file.write(data)
                digest.update(data)
                size_bytes += len(data)
        file_path.unlink()
        writer.write(digest.digest())
        writer.write_eof()
        done.set_result(
            EndpointResult(
                size_bytes=size_bytes,
                seconds=time.monotonic() - started_s,
                digest=digest.hexdigest(),
                cpu_seconds=time.process_time() - cpu_s,
                peak_memory_bytes=peak_memory_bytes(),
            )
        )

    def on_stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.get_running_loop().create_task(take(reader, writer)))

    server = await serve(job.bind, 0, configuration=configuration, stream_handler=on_stream)
    try:
        assert server._transport is not None
        report_port(server._transport.get_extra_info("sockname")[1])
        report(await asyncio.wait_for(done, _ACCEPT_LIMIT_S + job.payload_bytes / 1e5))
        await asyncio.to_thread(sys.stdin.read)  # the digest may still get lost: stay until the trial is over
    finally:
        server.close()


async def _send(job: SendJob) -> EndpointResult:
    from aioquic.asyncio.client import connect
    from aioquic.quic.configuration import QuicConfiguration

    assert job.payload is not None
    configuration = QuicConfiguration(
        alpn_protocols=[_ALPN], is_client=True, verify_mode=ssl.CERT_NONE, idle_timeout=_IDLE_LIMIT_S
    )
    if job.congestion_control is not None:
        configuration.congestion_control_algorithm = job.congestion_control
    wait_for_go()
    started_s, cpu_s = time.monotonic(), time.process_time()
    digest = xxhash.xxh3_128()
    async with (
        asyncio.timeout(_CONNECT_LIMIT_S) as limit,
        connect(job.host, job.port, configuration=configuration) as client,
    ):
        limit.reschedule(None)
        connect_s = time.monotonic() - started_s
        reader, writer = await client.create_stream()
        with Path(job.payload).open("rb", buffering=0) as file:
            while data := file.read(_CHUNK_BYTES):
                digest.update(data)
                writer.write(data)
                await asyncio.sleep(0)
        writer.write_eof()
        answer = await reader.read()
        seconds = time.monotonic() - started_s
    if answer != digest.digest():
        raise TransferError("the receiver's digest differs from the sender's")
    size_bytes = os.path.getsize(job.payload)
    return EndpointResult(
        size_bytes=size_bytes,
        seconds=seconds,
        connect_s=connect_s,
        goodput_bps=8 * size_bytes / seconds,
        digest=digest.hexdigest(),
        congestion_control=configuration.congestion_control_algorithm,
        cpu_seconds=time.process_time() - cpu_s,
        peak_memory_bytes=peak_memory_bytes(),
    )


def _certificate() -> tuple[Any, Any]:
    """A self-signed certificate for one hour, and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "nettool")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .sign(key, hashes.SHA256())
    )
    return certificate, key


if __name__ == "__main__":
    main()
