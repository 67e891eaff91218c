"""Super-packets: the reads of a TUN device with offloads, split into the packets that a wire would carry.

With IFF_VNET_HDR every read begins with a `virtio_net_hdr` (virtio 1.2, section 5.1.6). A sender with segmentation
offload puts up to 64 KiB under one IP header; `gso_size` in the virtio header says how the device would segment it. The
emulator has to treat each of these segments as a packet of its own, but writing the surviving packets one by one would
cost a system call each. A run of neighbours is therefore written as a shorter super-packet: its lengths, IPv4
identification, TCP sequence number and flags become those that the run would have had, and the kernel at the other end
accepts it like a packet from its own GRO.

A packet with VIRTIO_NET_HDR_F_NEEDS_CSUM carries only the sum of its pseudo-header; the network card completes the
checksum. Between two namespaces that is not necessary. Before the model corrupts a packet, its checksum is completed,
so that the receiving kernel detects the corruption. Sums are those of RFC 1071: the ones' complement sum of 16-bit
words is the whole data as one number modulo 65,535.
"""

import struct

VNET_HEADER = struct.Struct("=BBHHHH")  # flags, gso_type, hdr_len, gso_size, csum_start, csum_offset
VNET_BYTES = VNET_HEADER.size
NEEDS_CSUM = 1
GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4 = 0, 1, 4, 5
GSO_ECN = 0x80
_TCP_FIN_PSH, _TCP_CWR = 0x09, 0x80
_UINT16 = struct.Struct("!H")
_UINT32 = struct.Struct("!I")
_ECN_CE = 3
_MAX_IP_HEADER_BYTES, _IPV6_HEADER_BYTES = 60, 40


class SuperPacket:
    """One read from a TUN device: `packets` packets of `packet_bytes` each, the last of `last_bytes`.

    Sizes are those of IP packets. `is_ecn`: the packets are ECN-capable and not marked yet.
    """

    __slots__ = (
        "_data",
        "_gso_type",
        "_header_bytes",
        "_is_ipv6",
        "_transport",
        "_view",
        "is_ecn",
        "last_bytes",
        "packet_bytes",
        "packets",
        "segment_bytes",
    )

    def __init__(self, data: bytes) -> None:
        """`data` is one read, with its virtio_net_hdr. Raises ValueError if it is not a valid IP packet."""
        self._data = data
        self._view = memoryview(data)
        if len(data) < VNET_BYTES + 20:
            raise ValueError("too short for an IP packet")
        _, gso_type, _, gso_size, csum_start, _ = VNET_HEADER.unpack_from(data)
        version = data[VNET_BYTES] >> 4
        if version not in (4, 6):
            raise ValueError("neither IPv4 nor IPv6")
        self._is_ipv6 = version == 6
        traffic_class = (data[VNET_BYTES + 1] >> 4) if self._is_ipv6 else data[VNET_BYTES + 1]
        self.is_ecn = traffic_class & 3 in (1, 2)
        size = len(data) - VNET_BYTES
        self._gso_type = gso_type & ~GSO_ECN
        self._transport = csum_start
        self.packets = 1
        self.packet_bytes = self.last_bytes = size
        self._header_bytes = self.segment_bytes = 0
        if self._gso_type != GSO_NONE:
            transport = VNET_BYTES + csum_start
            if gso_size == 0 or len(data) < transport + 20:
                raise ValueError("a super-packet without a segment size or without a transport header")
            is_udp = self._gso_type == GSO_UDP_L4
            self._header_bytes = csum_start + (8 if is_udp else (data[transport + 12] >> 4) * 4)
            self.segment_bytes = gso_size
            payload = size - self._header_bytes
            self.packets = max(1, -(-payload // gso_size))
            self.packet_bytes = self._header_bytes + min(gso_size, payload)
            self.last_bytes = size - (self.packets - 1) * gso_size

    def cut(self, first: int, count: int, is_marked: bool = False) -> list[bytes | bytearray | memoryview]:
        """The buffers to write, in one writev, for `count` packets from `first` on; `is_marked` sets CE."""
        if count == self.packets:
            if not is_marked:
                return [self._data]
            header = bytearray(self._data[: VNET_BYTES + _MAX_IP_HEADER_BYTES])
            rest = self._view[VNET_BYTES + _MAX_IP_HEADER_BYTES :]
        else:
            header, rest = self._cut_run(first, count)
        if is_marked:
            _mark(header, self._is_ipv6)
        return [header, rest]

    def corrupted(self, index: int, corrupt_at: float) -> bytearray:
        """Packet `index` with one bit of its IP payload flipped, at the relative position `corrupt_at` in [0, 1)."""
        packet = bytearray().join(self.cut(index, 1))
        flags, _, _, _, csum_start, csum_offset = VNET_HEADER.unpack_from(packet)
        if flags & NEEDS_CSUM:
            start = VNET_BYTES + csum_start
            total = ones_complement_sum(packet[start:])
            checksum = 0xFFFF - total or 0xFFFF  # in UDP 0 means "no checksum"; 0xFFFF is the same sum
            _UINT16.pack_into(packet, start + csum_offset, checksum)
        VNET_HEADER.pack_into(packet, 0, 0, GSO_NONE, 0, 0, 0, 0)
        begin = VNET_BYTES + (_IPV6_HEADER_BYTES if self._is_ipv6 else (packet[VNET_BYTES] & 15) * 4)
        bits = (len(packet) - begin) * 8
        if bits > 0:
            at = begin * 8 + int(corrupt_at * bits)
            packet[at // 8] ^= 0x80 >> at % 8
        return packet

    def _cut_run(self, first: int, count: int) -> tuple[bytearray, memoryview]:
        """The header and the payload of a run of packets."""
        begin = VNET_BYTES + self._header_bytes
        start = begin + first * self.segment_bytes
        payload = self._view[start : start + count * self.segment_bytes]
        header = bytearray(self._view[:begin])
        is_last = first + count == self.packets
        flags, gso_type, _, gso_size, csum_start, csum_offset = VNET_HEADER.unpack_from(header)
        if count == 1:
            gso_type, gso_size = GSO_NONE, 0
        VNET_HEADER.pack_into(header, 0, flags, gso_type, self._header_bytes, gso_size, csum_start, csum_offset)
        size = self._header_bytes + len(payload)
        whole = len(self._data) - VNET_BYTES
        if self._is_ipv6:
            _UINT16.pack_into(header, VNET_BYTES + 4, size - _IPV6_HEADER_BYTES)
        else:
            _UINT16.pack_into(header, VNET_BYTES + 2, size)
            (identification,) = _UINT16.unpack_from(header, VNET_BYTES + 4)
            _UINT16.pack_into(header, VNET_BYTES + 4, (identification + first) & 0xFFFF)
            _set_ipv4_checksum(header)
        transport = VNET_BYTES + csum_start
        if self._gso_type == GSO_UDP_L4:
            _UINT16.pack_into(header, transport + 4, size - csum_start)
        else:
            (sequence,) = _UINT32.unpack_from(header, transport + 4)
            _UINT32.pack_into(header, transport + 4, (sequence + first * self.segment_bytes) & 0xFFFFFFFF)
            if not is_last:
                header[transport + 13] &= ~_TCP_FIN_PSH
            if first:
                header[transport + 13] &= ~_TCP_CWR
                header[1] &= ~GSO_ECN
        (pseudo_sum,) = _UINT16.unpack_from(header, transport + csum_offset)
        pseudo_sum = (pseudo_sum - whole + size) % 0xFFFF or 0xFFFF  # the pseudo-header contains the length
        _UINT16.pack_into(header, transport + csum_offset, pseudo_sum)
        return header, payload


def ones_complement_sum(data: bytes | bytearray | memoryview) -> int:
    """The RFC 1071 sum of `data` as 16-bit words, padded with a zero byte: 1 to 0xFFFF, or 0 if all bytes are 0."""
    padded = bytes(data) + b"\0" * (len(data) % 2)
    value = int.from_bytes(padded)
    return value % 0xFFFF or (0xFFFF if value else 0)


def _set_ipv4_checksum(packet: bytearray) -> None:
    end = VNET_BYTES + (packet[VNET_BYTES] & 15) * 4
    _UINT16.pack_into(packet, VNET_BYTES + 10, 0)
    _UINT16.pack_into(packet, VNET_BYTES + 10, 0xFFFF - ones_complement_sum(packet[VNET_BYTES:end]))


def _mark(header: bytearray, is_ipv6: bool) -> None:
    if is_ipv6:
        header[VNET_BYTES + 1] |= _ECN_CE << 4
    else:
        header[VNET_BYTES + 1] |= _ECN_CE
        _set_ipv4_checksum(header)
