"""What is newer in the repository than what the node holds, in one answer: metadata files and the manifest, packed.

It only spares requests. `Fetcher` hands on each part when it is asked for, and there it is judged as if it had come alone; what is not in
it, or all of it when it cannot be read, is asked for alone.

An answer is parts, one behind the other: a line of name and length, then so many bytes. Length 0: the listener has no such file.
"""

import binascii

from micropython import const

from node.update import Refused, spare
from node.update.download import MANIFEST, NEWS, digest_of, make_folders

_FOLDER = "/tuf/"
_HELD = ("root", "snapshot", "targets")
_MOST_BYTES = const(32_768)  # packed, and not packed; the other side leaves out what is above
_MOST_PARTS = const(16)  # each takes a block of flash
_MOST_HEAD = const(160)
_NAME_BYTES = const(4)
_NO_SPACE = const(28)
_SPACE = const(32)


def fetch(fetcher, target):
    """Ask for what a release needs whose target has this path. Raises Refused, and what the network raises."""
    forget()
    model, _, _ = target.rpartition("/")
    held = [str(_version(name)) for name in _HELD + (model,)]
    digest, length = digest_of(MANIFEST)
    sha256 = digest.digest()[:_NAME_BYTES] if length else b""
    held.append(str(binascii.hexlify(sha256), "ascii") or "-")
    pieces = fetcher.packed("news/%s/%s" % (".".join(held), target), _MOST_BYTES)
    if pieces is None:
        return
    try:
        _take_apart(pieces)
    except (ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno != _NO_SPACE:
            raise
        forget()
        fetcher.close()


def forget():
    """Nothing is new."""
    spare.keep_only(NEWS, lambda name: False)


# --- private ---


def _version(role):
    """Of the file that is held; 0 when there is none. Only what is asked for depends on it."""
    from node.update.metadata import Scanner

    try:
        with open(_FOLDER + role + ".json", "rb") as file:
            return Scanner(file).document({"signed": {"version": int}})["signed"]["version"]
    except (OSError, ValueError, LookupError):
        return 0


def _take_apart(pieces):
    """Each part into a file of its name. Raises ValueError when it cannot be read."""
    from node.update.packed import Unpacker

    make_folders(NEWS + "/")
    room, parts, left, head, file = _MOST_BYTES, _MOST_PARTS, 0, b"", None
    try:
        for piece in Unpacker().unpacked(pieces):
            room -= len(piece)
            if room < 0:
                raise Refused("endless data")
            while piece:
                if left and file is not None:
                    count = min(left, len(piece))
                    file.write(piece[:count])
                    left -= count
                    piece = piece[count:]
                    continue
                line, end, piece = bytes(piece).partition(b"\n")
                head += line
                if end:
                    name, left = _understand(head)
                    if file is not None:
                        file.close()
                    file, head, parts = open(NEWS + "/" + name, "wb"), b"", parts - 1
                if len(head) > _MOST_HEAD or parts < 0:
                    raise ValueError("news")
    finally:
        if file is not None:
            file.close()
    if left or head:
        raise ValueError("news")


def _understand(head):
    """(name of a file, length) of a part."""
    name, _, length = head.partition(b" ")
    name = name.rpartition(b"/")[2]
    if not length.isdigit() or name[:1] in (b"", b".") or min(name) <= _SPACE:
        raise ValueError("news")
    return str(name, "utf-8"), int(length)
