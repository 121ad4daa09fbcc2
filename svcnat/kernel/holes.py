"""Files that forget their beginning while others go on writing to them: offsets stay, the space is free again.

Who forgets how much is for others to decide. Sources: fallocate(2), lseek(2).
"""

from __future__ import annotations

import errno
import os

from svcnat.kernel import syscalls


def forget(descriptor: int, until: int) -> None:
    """Free the space of a file's first `until` bytes; a file system that cannot do so loses all of the file.

    Raises:
        OSError: the file cannot be written.

    """
    try:
        syscalls.punch(descriptor, until)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        os.ftruncate(descriptor, 0)


def beginning(descriptor: int, offset: int = 0) -> int:
    """The offset of the first byte, from `offset` on, that is not forgotten; the descriptor's own stays."""
    here = os.lseek(descriptor, 0, os.SEEK_CUR)
    try:
        return os.lseek(descriptor, offset, os.SEEK_DATA)
    except OSError:
        return offset  # there is nothing after it, or the file system knows of no holes
    finally:
        os.lseek(descriptor, here, os.SEEK_SET)
