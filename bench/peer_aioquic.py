"""An aioquic server or client for bench/peers.py: so many bytes on one stream, memory to memory.

python bench/peer_aioquic.py server BYTES          prints its port
python bench/peer_aioquic.py client BYTES PORT     prints seconds from connect to the server's last word
"""

import asyncio
import datetime
import ssl
import sys
import tempfile
import time
from pathlib import Path

from aioquic.asyncio import connect, serve
from aioquic.quic.configuration import QuicConfiguration
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

WINDOW_BYTES = 1 << 26


def configuration(is_client: bool) -> QuicConfiguration:
    result = QuicConfiguration(
        is_client=is_client, alpn_protocols=["bytes"], max_data=WINDOW_BYTES, max_stream_data=WINDOW_BYTES
    )
    if is_client:
        result.verify_mode = ssl.CERT_NONE
        return result
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .sign(key, hashes.SHA256())
    )
    with tempfile.TemporaryDirectory() as folder:
        pem, private = Path(folder, "certificate"), Path(folder, "key")
        pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        private.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        result.load_cert_chain(pem, private)
    return result


async def server(size_bytes: int) -> None:
    finished = asyncio.Event()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left = size_bytes
        while left and (piece := await reader.read(1 << 16)):
            left -= len(piece)
        writer.write(b"done")
        writer.write_eof()
        finished.set()

    tasks = set()

    def on_stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.ensure_future(take(reader, writer)))

    running = await serve("127.0.0.1", 0, configuration=configuration(is_client=False), stream_handler=on_stream)
    print(running._transport.get_extra_info("sockname")[1], flush=True)
    await finished.wait()
    await asyncio.sleep(1)  # for the last word to be acknowledged
    running.close()


async def client(size_bytes: int, port: int) -> None:
    start = time.monotonic()
    async with connect("127.0.0.1", port, configuration=configuration(is_client=True)) as connection:
        reader, writer = await connection.create_stream()
        writer.write(bytes(size_bytes))
        writer.write_eof()
        if await reader.read() != b"done":
            raise RuntimeError("the server did not get everything")
        print(time.monotonic() - start, flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "server":
        asyncio.run(server(int(sys.argv[2])))
    else:
        asyncio.run(client(int(sys.argv[2]), int(sys.argv[3])))
