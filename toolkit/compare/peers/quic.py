"""QUIC by aioquic as an end of a trial: one file on one stream, hashed at both ends, its digest sent back.

Speaks the lines of `toolkit.compare.worker`. TLS is on, for QUIC has no other way (RFC 9001); the certificate is made
for the one trial, and the client does not check it.
"""

import asyncio
import datetime
import json
import os
import ssl
import sys
import time
from pathlib import Path
from typing import Any

import xxhash

from toolkit.compare.worker import peak_memory_bytes, say, wait_for_go
from toolkit.errors import NettoolError, TransferError

_ALPN = "nettool-bench"
_CHUNK_BYTES = 1 << 20
_ACCEPT_LIMIT_S = 60.0
_IDLE_LIMIT_S = 30.0
_CONNECT_LIMIT_S = 10.0


def main() -> None:
    """Do the one job."""
    job = json.loads(sys.stdin.readline())
    try:
        if job["role"] == "receive":
            asyncio.run(_receive(job))
            return
        result = asyncio.run(_send(job))
    except NettoolError as error:
        result = {"error": str(error), "exit_code": error.exit_code}
    except (ConnectionError, TimeoutError, OSError) as error:
        result = {"error": f"QUIC: {error or type(error).__name__}", "exit_code": TransferError.exit_code}
    say(result)


async def _receive(job: dict[str, Any]) -> None:
    from aioquic.asyncio import serve
    from aioquic.quic.configuration import QuicConfiguration

    configuration = QuicConfiguration(alpn_protocols=[_ALPN], is_client=False, idle_timeout=_IDLE_LIMIT_S)
    configuration.certificate, configuration.private_key = _certificate()
    done: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
    tasks = set()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        started_s, cpu_s = time.monotonic(), time.process_time()
        digest, size_bytes = xxhash.xxh3_128(), 0
        with (Path(job["directory"]) / "quic").open("wb", buffering=0) as file:
            while data := await reader.read(_CHUNK_BYTES):
                file.write(data)
                digest.update(data)
                size_bytes += len(data)
        (Path(job["directory"]) / "quic").unlink()
        writer.write(digest.digest())
        writer.write_eof()
        done.set_result(
            {
                "bytes": size_bytes,
                "seconds": time.monotonic() - started_s,
                "digest": digest.hexdigest(),
                "cpu_seconds": time.process_time() - cpu_s,
                "peak_memory_bytes": peak_memory_bytes(),
            }
        )

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(take(reader, writer))
        tasks.add(task)

    server = await serve(job["bind"], 0, configuration=configuration, stream_handler=begin)
    try:
        say({"port": server._transport.get_extra_info("sockname")[1]})
        say(await asyncio.wait_for(done, _ACCEPT_LIMIT_S + job.get("payload_bytes", 0) / 1e5))
        await asyncio.to_thread(sys.stdin.read)  # the digest may still be lost: stay until the trial is over
    finally:
        server.close()


async def _send(job: dict[str, Any]) -> dict[str, Any]:
    from aioquic.asyncio import connect
    from aioquic.quic.configuration import QuicConfiguration

    configuration = QuicConfiguration(
        alpn_protocols=[_ALPN], is_client=True, verify_mode=ssl.CERT_NONE, idle_timeout=_IDLE_LIMIT_S
    )
    if job.get("congestion_control") is not None:
        configuration.congestion_control_algorithm = job["congestion_control"]
    host, port = job["address"]
    wait_for_go()
    started_s, cpu_s = time.monotonic(), time.process_time()
    digest = xxhash.xxh3_128()
    async with asyncio.timeout(_CONNECT_LIMIT_S) as limit, connect(host, port, configuration=configuration) as client:
        limit.reschedule(None)
        connected_s = time.monotonic() - started_s
        reader, writer = await client.create_stream()
        with Path(job["payload"]).open("rb", buffering=0) as file:
            while data := file.read(_CHUNK_BYTES):
                digest.update(data)
                writer.write(data)
                await asyncio.sleep(0)
        writer.write_eof()
        answer = await reader.read()
        seconds = time.monotonic() - started_s
    if answer != digest.digest():
        raise TransferError("the receiver's digest is not the sender's")
    size_bytes = os.path.getsize(job["payload"])
    return {
        "bytes": size_bytes,
        "seconds": seconds,
        "connect_s": connected_s,
        "goodput_bps": 8 * size_bytes / seconds,
        "digest": digest.hexdigest(),
        "congestion_control": configuration.congestion_control_algorithm,
        "cpu_seconds": time.process_time() - cpu_s,
        "peak_memory_bytes": peak_memory_bytes(),
    }


def _certificate() -> tuple[Any, Any]:
    """Self-signed, for an hour."""
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
