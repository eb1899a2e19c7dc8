"""offload: what a card does for its driver, done by us: checksums are completed, segments are cut.

Pure: bytes in, bytes out. Whatever a frame or its virtio_net_hdr has wrong is a BadFrame.
"""

from __future__ import annotations

import struct

from ukernel.abi.virtio import (
    NET_F_CSUM,
    NET_F_GUEST_CSUM,
    NET_F_GUEST_TSO4,
    NET_F_HOST_TSO4,
    NET_GSO_NONE,
    NET_GSO_TCPV4,
    NET_HDR_F_NEEDS_CSUM,
    NET_HEADER,
    NET_HEADER_BYTES,
    NET_MOST_BYTES,
    NetHeader,
)

ETHERNET = 14  # bytes before what the MTU counts
PLAIN = bytes(NET_HEADER_BYTES)  # the header of a frame that needs nothing
CAME = NET_HEADER.pack(
    *NetHeader(num_buffers=1)
)  # the same, in front of a frame that comes (§5.1.6.4.1)
LEAST_PIECE = 16  # what the smallest MTU leaves a segment with options: so many pieces, no more
IPV4, TCP = 0x0800, 6
FIN, PSH, CWR = 0x01, 0x08, 0x80
Frame = bytes | bytearray
_PIECE = 4096  # a division takes time for each digit: of long texts, pieces are added first
_LENGTH_ID = struct.Struct(">HH")
_SEQ = struct.Struct(">I")


class BadFrame(Exception):
    """The frame is none, or its header says what cannot be; the text says why."""


def ones(data: memoryview) -> int:
    """The sum of all 16-bit big-endian words, folded (RFC 1071); an odd byte is followed by 0."""
    length, total = len(data), 0
    for at in range(0, length - length % _PIECE, _PIECE):
        total += int.from_bytes(data[at : at + _PIECE], "big")
    rest = int.from_bytes(data[length - length % _PIECE :], "big")
    total += rest << 8 if length & 1 else rest
    return total and (total % 0xFFFF or 0xFFFF)


def checked(header: bytes, length: int, accepted: int, mtu: int) -> bytes:
    """The header as whoever is at the other end may believe it, for a frame of `length` bytes from
    a driver that has accepted these features (§5.1.6.2). Raises BadFrame."""
    flags, gso, hdr_len, gso_size, start, offset, _ = NET_HEADER.unpack(header)
    flags &= NET_HDR_F_NEEDS_CSUM  # §5.1.6.2.2: bits that are not for us are ignored
    most = ETHERNET + mtu if gso == NET_GSO_NONE else NET_MOST_BYTES
    if not ETHERNET <= length <= most:
        raise BadFrame(f"a frame of {length} bytes, at least {ETHERNET} and at most {most}")
    if flags:
        if not accepted & NET_F_CSUM:
            raise BadFrame("a checksum to complete, which was not agreed")
        if start < ETHERNET or start + offset + 2 > length:
            raise BadFrame(f"a checksum from {start} at {offset} in a frame of {length} bytes")
    if gso != NET_GSO_NONE:
        if gso != NET_GSO_TCPV4 or not accepted & NET_F_HOST_TSO4:
            raise BadFrame(f"a segment of kind {gso} to cut, which was not agreed")
        if not flags:
            raise BadFrame("a segment to cut without a checksum to complete")
        if not LEAST_PIECE <= gso_size <= mtu or hdr_len > length:
            raise BadFrame(f"a segment to cut by {gso_size} bytes behind {hdr_len}")
        return NET_HEADER.pack(flags, gso, hdr_len, gso_size, start, offset, 0)
    return NET_HEADER.pack(flags, gso, 0, 0, start, offset, 0) if flags else PLAIN


def suits(flags: int, gso: int, accepted: int) -> bool:
    """Whether a driver that has accepted these features takes a frame with this in its header."""
    if gso and not accepted & NET_F_GUEST_TSO4:
        return False
    return not flags or bool(accepted & NET_F_GUEST_CSUM)


def real(header: Frame | memoryview, frame: Frame) -> list[Frame]:
    """The frames that are sent on a real line in place of this one. Raises BadFrame."""
    flags, gso, _, gso_size, start, offset, _ = NET_HEADER.unpack(header)
    if gso:
        return cut(frame, gso_size)
    if flags & NET_HDR_F_NEEDS_CSUM:
        whole = bytearray(frame)
        complete(whole, start, offset)
        return [whole]
    return [frame]


def complete(frame: bytearray, start: int, offset: int) -> None:
    """Add up from `start` and put the sum `offset` bytes further, where that of the pseudo header
    is. A sum of 0 is sent as 0xFFFF, since 0 is no checksum in UDP (RFC 768)."""
    if start + offset + 2 > len(frame):
        raise BadFrame(f"a checksum at {start + offset} of {len(frame)} bytes")
    total = 0xFFFF - ones(memoryview(frame)[start:])
    frame[start + offset : start + offset + 2] = (total or 0xFFFF).to_bytes(2, "big")


def cut(frame: Frame, size: int) -> list[Frame]:
    """A long TCP/IPv4 segment as frames of `size` bytes of payload. Each has its length, IP
    identification, sequence number and checksums; FIN and PSH are on the last, CWR on the first
    (RFC 3168 §6.1.2)."""
    tcp, data = _headers(frame)
    if size <= 0:
        raise BadFrame(f"pieces of {size} bytes")
    view, head = memoryview(frame), frame[:data]
    (number,) = _SEQ.unpack_from(frame, tcp + 4)
    identification = int.from_bytes(frame[18:20], "big")
    flags = frame[tcp + 13]
    pieces: list[Frame] = []
    addresses = ones(view[26:34]) + TCP
    for index, at in enumerate(range(data, max(len(frame), data + 1), size)):
        piece = bytearray(head)
        piece += view[at : at + size]
        last = at + size >= len(frame)
        piece[tcp + 13] = flags & ~(0 if last else FIN | PSH) & ~(CWR if index else 0)
        _SEQ.pack_into(piece, tcp + 4, (number + at - data) & 0xFFFF_FFFF)
        total, name = len(piece) - ETHERNET, (identification + index) & 0xFFFF
        _LENGTH_ID.pack_into(piece, 16, total, name)
        _put_sums(piece, tcp, addresses + total - (tcp - ETHERNET))
        pieces.append(piece)
    return pieces


def _put_sums(piece: bytearray, tcp: int, pseudo: int) -> None:
    """Both checksums of a frame, from nothing."""
    piece[24:26] = piece[tcp + 16 : tcp + 18] = b"\0\0"
    view = memoryview(piece)
    piece[24:26] = (0xFFFF - ones(view[ETHERNET:tcp])).to_bytes(2, "big")
    total = (ones(view[tcp:]) + pseudo) % 0xFFFF or 0xFFFF
    piece[tcp + 16 : tcp + 18] = (0xFFFF - total).to_bytes(2, "big")


def _headers(frame: Frame) -> tuple[int, int]:
    """Where TCP's header begins, and where its payload does."""
    if len(frame) < ETHERNET + 40 or int.from_bytes(frame[12:14], "big") != IPV4:
        raise BadFrame("a segment to cut that is not IPv4")
    tcp = ETHERNET + 4 * (frame[14] & 15)
    if frame[14] >> 4 != 4 or tcp < ETHERNET + 20 or frame[23] != TCP or len(frame) < tcp + 20:
        raise BadFrame("a segment to cut that is not TCP over IPv4")
    data = tcp + 4 * (frame[tcp + 12] >> 4)
    if not tcp + 20 <= data <= len(frame):
        raise BadFrame(f"a TCP header that ends at {data} of {len(frame)} bytes")
    return tcp, data
