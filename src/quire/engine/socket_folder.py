"""Where folders of sockets are made: the system limits the length of a socket's path."""

from __future__ import annotations

import os
import tempfile

_MOST_BYTES = 103  # 107 on Linux, less elsewhere
_LONGEST_END = len("/quire-http-abcdefgh/answers-123456")  # the longest path that is made below it
_SHORT = "/tmp"


def parent_of_sockets() -> str:
    """The folder of temporary files, or /tmp where that one's path is too long. ``ValueError`` when
    neither can be used."""
    usual = tempfile.gettempdir()
    num_bytes, most = len(os.fsencode(usual)), _MOST_BYTES - _LONGEST_END
    if num_bytes <= most:
        return usual
    if not os.access(_SHORT, os.W_OK | os.X_OK):
        raise ValueError(
            f"TMPDIR={usual} has {num_bytes} bytes, too many for sockets in it, and {_SHORT} "
            f"cannot be written; give a TMPDIR of at most {most} bytes"
        )
    return _SHORT
