"""virtio: what a driver and a device must agree on, from virtio 1.2 (OASIS), little-endian.

Register window: virtio-mmio version 2 (§4.2.2). Queues: split virtqueues (§2.7) with event
indices, no indirect descriptors. Devices: network (§5.1), block (§5.2), console (§5.3), entropy
(§5.4).
"""

from __future__ import annotations

import struct
import sys
from enum import IntEnum
from typing import NamedTuple

if sys.byteorder != "little":
    raise ImportError("the rings are shared as native integers; virtio wants them little-endian")

MAGIC = 0x74726976  # "virt"
VERSION = 2
VENDOR = 0x6E726B75  # "ukrn"


class Reg(IntEnum):
    """Offsets of the registers, all 32 bits wide (§4.2.2, table 4.1)."""

    MAGIC = 0x000
    VERSION = 0x004
    DEVICE_ID = 0x008
    VENDOR_ID = 0x00C
    DEVICE_FEATURES = 0x010
    DEVICE_FEATURES_SEL = 0x014
    DRIVER_FEATURES = 0x020
    DRIVER_FEATURES_SEL = 0x024
    QUEUE_SEL = 0x030
    QUEUE_NUM_MAX = 0x034
    QUEUE_NUM = 0x038
    QUEUE_READY = 0x044
    QUEUE_NOTIFY = 0x050
    INTERRUPT_STATUS = 0x060
    INTERRUPT_ACK = 0x064
    STATUS = 0x070
    QUEUE_DESC_LOW = 0x080
    QUEUE_DESC_HIGH = 0x084
    QUEUE_DRIVER_LOW = 0x090
    QUEUE_DRIVER_HIGH = 0x094
    QUEUE_DEVICE_LOW = 0x0A0
    QUEUE_DEVICE_HIGH = 0x0A4
    SHM_LEN_LOW = 0x0B0
    SHM_LEN_HIGH = 0x0B4
    CONFIG_GENERATION = 0x0FC
    CONFIG = 0x100


class Status(IntEnum):
    """Bits of the device status (§2.1). The driver only ever adds some; writing 0 resets."""

    ACKNOWLEDGE = 1
    DRIVER = 2
    DRIVER_OK = 4
    FEATURES_OK = 8
    NEEDS_RESET = 64
    FAILED = 128


class Interrupt(IntEnum):
    """Bits of InterruptStatus (§4.2.2): why the line was raised."""

    USED_BUFFER = 1
    CONFIG_CHANGE = 2


class DeviceId(IntEnum):
    """What kind of device it is (§5)."""

    NETWORK = 1
    BLOCK = 2
    CONSOLE = 3
    ENTROPY = 4


F_EVENT_IDX = 1 << 29  # §6: either side says at which index it wants to be told (§2.7.10)
F_VERSION_1 = 1 << 32  # §6: without it there is no virtio 1.x device


# Split virtqueues (§2.7).

MAX_QUEUE_SIZE = 1 << 15
INDEX_MASK = 0xFFFF  # avail.idx and used.idx run freely and wrap at 16 bits (§2.7.6, §2.7.8)

DESCRIPTOR = struct.Struct("<QIHH")  # addr, len, flags, next (§2.7.5)
DESC_F_NEXT = 1
DESC_F_WRITE = 2
DESC_F_INDIRECT = 4

# Both rings as arrays of 16-bit words: flags, idx, then the ring (§2.7.6, §2.7.8).
RING_FLAGS = 0
RING_IDX = 1
AVAIL_RING = 2
AVAIL_F_NO_INTERRUPT = 1
# The used ring as 32-bit words: flags and idx share the first, then (id, len) pairs.
USED_RING = 1

DESC_ALIGN = 16
AVAIL_ALIGN = 2
USED_ALIGN = 4


def used_event_at(size: int) -> int:
    """Where the driver says, in 16-bit words from the available ring, what to interrupt it for."""
    return AVAIL_RING + size


def avail_event_at(size: int) -> int:
    """Where the device says, in 16-bit words from the used ring, what to ring the doorbell for."""
    return 2 * USED_RING + 4 * size


def passes(event: int, old: int, new: int) -> bool:
    """Whether an index that went from `old` to `new` has gone past `event` (§2.7.10.1).

    So an event at the index itself asks for the very next step, and one just behind it for none.
    """
    return (new - event - 1) & INDEX_MASK < (new - old) & INDEX_MASK


class QueueLayout(NamedTuple):
    """Where the three parts of a virtqueue lie in one piece of memory, in bytes from its start."""

    avail: int
    used: int
    total: int


def valid_queue_size(size: int) -> bool:
    """A queue size is a power of two up to 32768 (§2.7)."""
    return 0 < size <= MAX_QUEUE_SIZE and size & (size - 1) == 0


def desc_bytes(size: int) -> int:
    return DESCRIPTOR.size * size


def avail_bytes(size: int) -> int:
    return 6 + 2 * size  # flags, idx, ring, used_event


def used_bytes(size: int) -> int:
    return 6 + 8 * size  # flags, idx, ring of (id, len), avail_event


def queue_layout(size: int) -> QueueLayout:
    """Descriptors first, then the available ring, then the used ring, each aligned (§2.7)."""
    avail = desc_bytes(size)
    used = -(-(avail + avail_bytes(size)) // USED_ALIGN) * USED_ALIGN
    return QueueLayout(avail, used, used + used_bytes(size))


# Network device (§5.1), one pair of queues.

NET_RECEIVEQ = 0
NET_TRANSMITQ = 1

NET_F_CSUM = 1 << 0  # the device completes checksums
NET_F_GUEST_CSUM = 1 << 1  # the driver takes frames whose checksum is not complete
NET_F_MTU = 1 << 3
NET_F_MAC = 1 << 5
NET_F_GUEST_TSO4 = 1 << 7  # the driver takes long TCP/IPv4 segments
NET_F_HOST_TSO4 = 1 << 11  # the device cuts them
NET_F_STATUS = 1 << 16

NET_HEADER = struct.Struct("<BBHHHHH")  # virtio_net_hdr (§5.1.6), the fields of NetHeader
NET_HEADER_BYTES = NET_HEADER.size
NET_HDR_F_NEEDS_CSUM = 1  # add up from csum_start, put it csum_offset further
NET_HDR_F_DATA_VALID = 2  # of a frame that came: its checksum was found right
NET_GSO_NONE = 0
NET_GSO_TCPV4 = 1
NET_S_LINK_UP = 1
NET_MOST_BYTES = 65535 + 14  # of a long frame; a receive buffer has a header more (§5.1.6.3.1)

_NET_CONFIG = struct.Struct("<6sHHH")


class NetHeader(NamedTuple):
    """What stands before each frame. `num_buffers` is 1, since buffers are not merged."""

    flags: int = 0
    gso_type: int = NET_GSO_NONE
    hdr_len: int = 0  # bytes of all headers of a long segment
    gso_size: int = 0  # bytes of payload in each of its pieces
    csum_start: int = 0
    csum_offset: int = 0
    num_buffers: int = 0


class NetConfig(NamedTuple):
    """The configuration space of a network device (§5.1.4)."""

    mac: bytes
    status: int = NET_S_LINK_UP
    max_virtqueue_pairs: int = 1
    mtu: int = 1500

    def pack(self) -> bytes:
        return _NET_CONFIG.pack(*self)

    @classmethod
    def unpack(cls, data: bytes) -> NetConfig:
        """Raises struct.error unless `data` has NET_CONFIG_BYTES bytes."""
        return cls(*_NET_CONFIG.unpack(data))


NET_CONFIG_BYTES = _NET_CONFIG.size


# Block device (§5.2).

BLK_QUEUE = 0

BLK_F_SEG_MAX = 1 << 2
BLK_F_RO = 1 << 5
BLK_F_BLK_SIZE = 1 << 6
BLK_F_FLUSH = 1 << 9
BLK_F_DISCARD = 1 << 13

BLK_HEADER = struct.Struct("<IIQ")  # type, reserved, sector (§5.2.6)
BLK_DISCARD_SEGMENT = struct.Struct("<QII")  # sector, num_sectors, flags (§5.2.6)
BLK_ID_BYTES = 20


class BlkType(IntEnum):
    """What a block request wants (§5.2.6)."""

    IN = 0
    OUT = 1
    FLUSH = 4
    GET_ID = 8
    DISCARD = 11


class BlkStatus(IntEnum):
    """The last byte that the device writes into a request (§5.2.6)."""

    OK = 0
    IOERR = 1
    UNSUPP = 2


_BLK_CONFIG = struct.Struct("<QIIHBBIBBHIBxHIIIIIB3xIII")


class BlkConfig(NamedTuple):
    """The configuration space of a block device (§5.2.4); sizes in sectors unless named bytes."""

    capacity: int
    size_max_bytes: int = 0
    seg_max: int = 0
    cylinders: int = 0
    heads: int = 0
    track_sectors: int = 0
    block_bytes: int = 0
    physical_block_exp: int = 0
    alignment_offset: int = 0
    min_io_blocks: int = 0
    opt_io_blocks: int = 0
    writeback: int = 0
    num_queues: int = 0
    max_discard_sectors: int = 0
    max_discard_seg: int = 0
    discard_alignment: int = 0
    max_write_zeroes_sectors: int = 0
    max_write_zeroes_seg: int = 0
    write_zeroes_may_unmap: int = 0
    max_secure_erase_sectors: int = 0
    max_secure_erase_seg: int = 0
    secure_erase_alignment: int = 0

    def pack(self) -> bytes:
        return _BLK_CONFIG.pack(*self)

    @classmethod
    def unpack(cls, data: bytes) -> BlkConfig:
        """Raises struct.error unless `data` has BLK_CONFIG_BYTES bytes."""
        return cls(*_BLK_CONFIG.unpack(data))


BLK_CONFIG_BYTES = _BLK_CONFIG.size


# Console device (§5.3), one port. Entropy device (§5.4).

CONSOLE_RECEIVEQ = 0
CONSOLE_TRANSMITQ = 1
RNG_QUEUE = 0
