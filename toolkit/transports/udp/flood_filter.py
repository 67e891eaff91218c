"""The packet filter of a flooded listener: a classic BPF program that drops a share of the INITIALs.

It tells INITIALs of two kinds apart: those whose token has the mark of the address that they come from, and all others.
An attacker who forges addresses does not receive tokens, so a token that is made up is worth no more than none. The
program computes the mark, which takes some 1,300 of its instructions, and less than a microsecond once the kernel has
compiled it. `token_mark_untrusted` reads a datagram exactly as the program does: both must agree on every INITIAL.

Read: bpf(4), linux/filter.h (SKF_AD_PROTOCOL, SKF_AD_RANDOM, SKF_NET_OFF); RFC 1321 (MD5).
"""

import math
import struct
from typing import Final

from toolkit.rudp.address_mark import AddressMarks
from toolkit.rudp.address_validation import MARK_OFFSET
from toolkit.rudp.handshake_packets import (
    MAX_VERSIONS_BYTES,
    PARAMETERS,
    InitialFlags,
    Parameter,
)
from toolkit.rudp.wire import PacketType

_INSTRUCTION: Final = struct.Struct("=HBBI")
INSTRUCTION_BYTES: Final = _INSTRUCTION.size
_OPERAND: Final = struct.Struct("=I")
_OPERAND_AT: Final = 4
_PARAMETER_BYTES: Final = 4  # id and length
_UDP_BYTES: Final = 8  # the filter of a UDP socket sees the packet from the UDP header on
_TYPE_AT: Final = _UDP_BYTES
_FLAGS_AT: Final = _UDP_BYTES + 1
_VERSIONS_AT: Final = _UDP_BYTES + PARAMETERS.size
_ETHERTYPE_IPV6: Final = 0x86DD
_PROTOCOL: Final = 0xFFFF_F000  # SKF_AD_OFF + SKF_AD_PROTOCOL
_RANDOM: Final = 0xFFFF_F000 + 56  # SKF_AD_OFF + SKF_AD_RANDOM
_NETWORK: Final = 0xFFF0_0000  # SKF_NET_OFF: from the IP header on
_IPV4_SOURCE_AT, _IPV6_SOURCE_AT = 12, 8
_ALL: Final = 0xFFFF_FFFF

# Operations. A is the accumulator, X the index register, M the memory, P the packet.
_LOAD_BYTE, _LOAD_HALF, _LOAD_WORD = 0x30, 0x28, 0x20  # A = P[k]
_LOAD_HALF_AT_X, _LOAD_WORD_AT_X = 0x48, 0x40  # A = P[X + k]
_LOAD, _LOAD_MEMORY, _LOAD_X_MEMORY, _STORE = 0x00, 0x60, 0x61, 0x02  # A = k; A = M[k]; X = M[k]; M[k] = A
_TO_X, _FROM_X = 0x07, 0x87
_ADD_K, _ADD, _AND, _OR, _XOR, _XOR_K, _SHIFT_LEFT, _SHIFT_RIGHT = 0x04, 0x0C, 0x5C, 0x4C, 0xAC, 0xA4, 0x64, 0x74
_JUMP, _JUMP_EQUAL, _JUMP_EQUAL_X, _JUMP_BITS, _JUMP_GREATER, _JUMP_AT_LEAST = 0x05, 0x15, 0x1D, 0x45, 0x25, 0x35
_RETURN: Final = 0x06

# Memory: the state of MD5, the address, the mark that the packet has, and a word for intermediate results.
_STATE: Final = (0, 1, 2, 3)
_ADDRESS: Final = (4, 5, 6, 7)
_GIVEN, _SCRATCH = 8, 9

_MD5_INITIAL: Final = (0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476)
_MD5_SHIFTS: Final = ((7, 12, 17, 22), (5, 9, 14, 20), (4, 11, 16, 23), (6, 10, 15, 21))
_MD5_WORD: Final = ((1, 0), (5, 1), (3, 5), (7, 0))
"""Step i of round r uses word a * i + b of the message, modulo 16."""
_MD5_LENGTH_BITS: Final = 8 * 48
_FIRST_ADDRESS_WORD: Final = 8


class _Program:
    """Instructions as (code, jump if true, jump if false, operand); the operand of a jump may be a label."""

    def __init__(self) -> None:
        self._instructions: list[tuple[int, int, int, int | str]] = []
        self._labels: dict[str, int] = {}

    def add(self, *codes_and_operands: tuple[int, int] | tuple[int]) -> None:
        """Add instructions, each a code and its operand, if it has one."""
        self._instructions += [(one[0], 0, 0, one[1] if len(one) > 1 else 0) for one in codes_and_operands]

    def label(self, name: str) -> None:
        """Name the next instruction."""
        self._labels[name] = len(self._instructions)

    def offset(self, label: str) -> int:
        """Return where the instruction with this label begins, in bytes."""
        return self._labels[label] * INSTRUCTION_BYTES

    def go_to(self, label: str) -> None:
        """Jump. A conditional jump reaches 255 instructions only, this one all of them."""
        self._instructions.append((_JUMP, 0, 0, label))

    def go_unless(self, condition: int, operand: int, label: str) -> None:
        """Jump unless the condition holds."""
        self._instructions.append((condition, 1, 0, operand))
        self.go_to(label)

    def go_if(self, condition: int, operand: int, label: str) -> None:
        """Jump if the condition holds."""
        self._instructions.append((condition, 0, 1, operand))
        self.go_to(label)

    def encode(self) -> bytes:
        """Return the program as the kernel takes it."""
        encoded = []
        for at, (code, if_true, if_false, operand) in enumerate(self._instructions):
            value = operand if isinstance(operand, int) else self._labels[operand] - at - 1
            encoded.append(_INSTRUCTION.pack(code, if_true, if_false, value))
        return b"".join(encoded)


class FloodFilter:
    """The program for one set of marks. It is assembled once; only the shares change."""

    def __init__(self, marks: AddressMarks) -> None:
        program = _Program()
        program.add((_LOAD_BYTE, _TYPE_AT))
        program.go_unless(_JUMP_EQUAL, PacketType.INITIAL, "accept")
        program.add((_LOAD_BYTE, _FLAGS_AT))
        program.go_unless(_JUMP_BITS, InitialFlags.HAS_TOKEN, "without")
        program.add((_LOAD_HALF, _VERSIONS_AT))
        program.go_unless(_JUMP_EQUAL, Parameter.VERSIONS, "without")
        program.add((_LOAD_HALF, _VERSIONS_AT + 2))
        program.go_if(_JUMP_GREATER, MAX_VERSIONS_BYTES, "without")
        program.add((_TO_X,), (_LOAD_HALF_AT_X, _VERSIONS_AT + _PARAMETER_BYTES))
        program.go_unless(_JUMP_EQUAL, Parameter.TOKEN, "without")
        program.add((_LOAD_WORD_AT_X, _VERSIONS_AT + 2 * _PARAMETER_BYTES + MARK_OFFSET), (_STORE, _GIVEN))
        _load_address(program)
        _compute_mark(program, marks.key)
        program.add((_LOAD_X_MEMORY, _GIVEN))
        program.go_unless(_JUMP_EQUAL_X, 0, "without")
        for name in ("with", "without"):  # of the packets that get here, a share is accepted
            program.label(name)
            program.add((_LOAD_WORD, _RANDOM))
            program.go_unless(_JUMP_AT_LEAST, _ALL, "accept")
            program.add((_RETURN, 0))
        program.label("accept")
        program.add((_RETURN, _ALL))
        self._code = bytearray(program.encode())
        self._limits_at = [program.offset(name) + INSTRUCTION_BYTES + _OPERAND_AT for name in ("without", "with")]

    def program(self, share_without_mark: float, share_with_mark: float) -> bytes:
        """Return the instructions that drop all but these shares of the INITIALs without and with the right mark."""
        for at, share in zip(self._limits_at, (share_without_mark, share_with_mark), strict=True):
            _OPERAND.pack_into(self._code, at, int(share * _ALL))
        return bytes(self._code)


def _load_address(program: _Program) -> None:
    """Put the packet's source address into memory, an IPv4 address after twelve zero bytes."""
    program.add((_LOAD_WORD, _PROTOCOL))
    program.go_if(_JUMP_EQUAL, _ETHERTYPE_IPV6, "ipv6")
    program.add((_LOAD, 0), *((_STORE, at) for at in _ADDRESS[:3]))
    program.add((_LOAD_WORD, _NETWORK + _IPV4_SOURCE_AT), (_STORE, _ADDRESS[3]))
    program.go_to("mark")
    program.label("ipv6")
    for number, at in enumerate(_ADDRESS):
        program.add((_LOAD_WORD, _NETWORK + _IPV6_SOURCE_AT + 4 * number), (_STORE, at))
    program.label("mark")


def _compute_mark(program: _Program, key: bytes) -> None:
    """Leave the mark of the address in A: the first word of MD5, of a key that is part of the instructions."""
    message = [*struct.unpack("<8I", key), 0, 0, 0, 0, 0x80, 0, _MD5_LENGTH_BITS, 0]
    for at, value in zip(_STATE, _MD5_INITIAL, strict=True):
        program.add((_LOAD, value), (_STORE, at))
    for step in range(64):
        kind = step // 16
        a, b, c, d = (_STATE[(place - step) % 4] for place in range(4))
        factor, offset = _MD5_WORD[kind]
        word = (factor * step + offset) % 16
        constant = (int(abs(math.sin(step + 1)) * 2**32) + message[word]) & _ALL
        program.add(*_md5_mix(kind, b, c, d), (_LOAD_X_MEMORY, a), (_ADD,), (_ADD_K, constant))
        if _FIRST_ADDRESS_WORD <= word < _FIRST_ADDRESS_WORD + len(_ADDRESS):
            program.add((_LOAD_X_MEMORY, _ADDRESS[word - _FIRST_ADDRESS_WORD]), (_ADD,))
        shift = _MD5_SHIFTS[kind][step % 4]
        program.add((_TO_X,), (_SHIFT_RIGHT, 32 - shift), (_STORE, _SCRATCH), (_FROM_X,), (_SHIFT_LEFT, shift))
        program.add((_LOAD_X_MEMORY, _SCRATCH), (_OR,), (_LOAD_X_MEMORY, b), (_ADD,), (_STORE, a))
    program.add((_LOAD_MEMORY, _STATE[0]), (_ADD_K, _MD5_INITIAL[0]))


def _md5_mix(kind: int, b: int, c: int, d: int) -> tuple[tuple[int, int] | tuple[int], ...]:
    """Return the instructions that leave F, G, H or I of RFC 1321 in A, of three words in memory."""
    if kind == 0:  # d ^ (b & (c ^ d))
        ends, inner, selector = d, c, b
    elif kind == 1:  # c ^ (d & (b ^ c))
        ends, inner, selector = c, b, d
    elif kind == 2:
        return (_LOAD_MEMORY, b), (_LOAD_X_MEMORY, c), (_XOR,), (_LOAD_X_MEMORY, d), (_XOR,)
    else:  # c ^ (b | ~d)
        return (
            (_LOAD_MEMORY, d), (_XOR_K, _ALL), (_LOAD_X_MEMORY, b), (_OR,), (_LOAD_X_MEMORY, c), (_XOR,)
        )  # fmt: skip
    return (
        (_LOAD_MEMORY, inner), (_LOAD_X_MEMORY, ends), (_XOR,), (_LOAD_X_MEMORY, selector), (_AND,),
        (_LOAD_X_MEMORY, ends), (_XOR,),
    )  # fmt: skip
