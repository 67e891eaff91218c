"""Bytes that no correct peer sends."""

from hypothesis import strategies as st


@st.composite
def damaged(draw: st.DrawFn, valid: st.SearchStrategy[bytes]) -> bytes:
    """Random bytes, or a valid packet that was truncated, extended, or had bits flipped."""
    how = draw(st.sampled_from(["noise", "cut", "longer", "flipped"]))
    if how == "noise":
        return draw(st.binary(max_size=2000))
    packet = bytearray(draw(valid))
    if how == "cut":
        return bytes(packet[: draw(st.integers(0, len(packet)))])
    if how == "longer":
        return bytes(packet) + draw(st.binary(max_size=100))
    if not packet:
        return b""
    for bit in draw(st.lists(st.integers(0, 8 * len(packet) - 1), min_size=1, max_size=8)):
        packet[bit // 8] ^= 1 << bit % 8
    return bytes(packet)
