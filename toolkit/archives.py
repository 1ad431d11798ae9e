"""Look into a zip archive of a stranger (resume.pt, golden.npz) before anything in it is unpacked.

An archive says of each member how large it is unpacked, and says so in a directory at its end: 46 bytes for a member that becomes an
object of ten times that size. So the size of the directory is read first, then the directory, and nothing else.
"""

import struct
import zipfile
from typing import Any, BinaryIO

_END = struct.Struct("<4s4H2LH")  # of the directory; APPNOTE.TXT of PKWARE, 4.3.16
_END64 = struct.Struct("<4sQ2H2L4Q")  # the same with larger numbers, 4.3.14
_LOCATOR = struct.Struct("<4sLQL")  # where that lies, 4.3.15
_BYTES_PER_MEMBER = 256  # the name included


def members(file: BinaryIO, most_members: int, most_bytes: int) -> list[zipfile.ZipInfo]:
    """Return the members of an archive that is open for reading.

    Raises ValueError for what is no zip archive, has something after its end, has more than `most_members`, or more than `most_bytes`
    unpacked; and where its two directories differ, since two programs would then see two archives.
    """
    size = file.seek(0, 2)
    if size < _END.size:
        raise ValueError(f"it has {size} bytes, too few for a zip archive")
    end = _read(file, _END, size - _END.size)
    if end[0] != b"PK\x05\x06" or end[7]:
        raise ValueError("it is no zip archive, or is cut")
    count, length = end[4], end[5]
    if size >= _END.size + _LOCATOR.size and (locator := _read(file, _LOCATOR, size - _END.size - _LOCATOR.size))[0] == b"PK\x06\x07":
        if locator[2] > size - _END64.size:
            raise ValueError("its directory lies outside of it")
        wide = _read(file, _END64, locator[2])
        given, saturated = (*end[3:7],), (0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF)
        if wide[0] != b"PK\x06\x06" or any(short not in (long, most) for short, long, most in zip(given, wide[6:], saturated, strict=True)):
            raise ValueError("its two directories differ")
        count, length = wide[7], wide[8]
    if count > most_members or length > _BYTES_PER_MEMBER * most_members:
        raise ValueError(f"it has {count} members in a directory of {length} bytes; at most {most_members} are read")
    try:
        with zipfile.ZipFile(file) as archive:
            found = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError, struct.error, OverflowError) as error:
        raise ValueError(f"it is no sound zip archive: {error}") from error
    if len(found) > most_members:
        raise ValueError(f"it has {len(found)} members; at most {most_members} are read")
    if (total := sum(each.file_size for each in found)) > most_bytes:
        raise ValueError(f"it unpacks to {total} bytes; at most {most_bytes} are read")
    return found


def _read(file: BinaryIO, record: struct.Struct, at: int) -> tuple[Any, ...]:
    file.seek(at)
    return record.unpack(file.read(record.size))
