"""Whether an OGG file is whole: its last page says so (RFC 3533, section 6)."""

from __future__ import annotations

import os
from io import BytesIO

CAPTURE = b"OggS"  # what every page begins with
FLAGS, SEGMENTS, HEADER = 5, 26, 27  # byte of the flags, byte of the number of segments, and where the table of their lengths begins
LAST = 4  # the flag of a stream's last page
LONGEST_PAGE = HEADER + 255 + 255 * 255  # bytes: header, table, segments


def lacks_its_last_page(handle: int | BytesIO) -> bool:
    """Whether the end of a file shows a page that is cut, or not the last one. The handle is at the beginning afterwards."""
    return not ends(_last_bytes(handle, 2 * LONGEST_PAGE))


def ends(tail: bytes) -> bool:
    """Whether the last page in these bytes is whole, and says that it ends its stream; so too if there is none: who knows.

    What stands behind it is not looked at.
    """
    place = tail.rfind(CAPTURE)
    if place < 0:
        return True
    page = tail[place:]
    whole = len(page) >= HEADER and len(page) >= HEADER + page[SEGMENTS] + sum(page[HEADER : HEADER + page[SEGMENTS]])
    return whole and bool(page[FLAGS] & LAST)


def _last_bytes(handle: int | BytesIO, count: int) -> bytes:
    """At most so many from the end."""
    if isinstance(handle, BytesIO):
        return bytes(handle.getbuffer()[-count:])
    os.lseek(handle, max(0, os.fstat(handle).st_size - count), os.SEEK_SET)
    tail = os.read(handle, count)
    os.lseek(handle, 0, os.SEEK_SET)
    return tail
