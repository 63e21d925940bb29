"""Metadata files of The Update Framework, read in one pass: strict JSON, canonical bytes, and only what is wanted of the content.

MicroPython's own `json` accepts what is none (`[1,]`, `01`, a name twice) and would hold the whole file in memory. Names in an object
must be sorted, as python-tuf writes them: so the canonical bytes, which a signature is over, come out of the same pass, and no name is
there twice. The heap needed does not grow with the file.

A template says what is kept of a value: None nothing, True all of it, `str`, `int` or `bool` one of that type and no other, PLACE the offset
at which it begins, {name: template} those of an object ("*": all others), [template] the items of an array, (template, function) what the
function makes of it. What comes to None is left out.
"""

import binascii

from micropython import const

PLACE = 0

_BUFFER_BYTES = const(256)
_MOST_TEXT = const(1_152)  # the longest that is wanted is a signature of RSA-4096: 1,024 digits
_MOST_DEPTH = const(8)  # python-tuf's own goes to 6; every step takes C stack
_MOST_KEPT = const(1_536)
_MOST_DIGITS = const(20)
_QUOTE = const(34)
_COMMA = const(44)
_COLON = const(58)
_BRACKET = const(91)
_BACKSLASH = const(92)
_BRACKET_END = const(93)
_LETTER_U = const(117)
_BRACE = const(123)
_BRACE_END = const(125)
_NOTHING = const(-1)
_SPACE = b" \n\r\t"
_WORD = b"+-.0123456789Eaeflnrstu"
_ESCAPED = b'"\\/bfnrt'
_MEANT = b'"\\/\b\f\n\r\t'


# Of these there is one, whatever is scanned: long pieces are hard to find in a heap that is in use.
_buffer = bytearray(_BUFFER_BYTES)
_view = memoryview(_buffer)
_room = bytearray(_MOST_TEXT)
_texts = memoryview(_room)


class Scanner:
    """One pass over an open file. `canonical` and `raw` are given bytes: those of what is signed, and all as they are. One at a time."""

    def __init__(self, file, canonical=None, raw=None):
        self._file = file
        self._canonical = canonical
        self._raw = raw
        self._put = _nowhere
        self._at = self._end = self._read = 0
        self._left = _MOST_KEPT

    def document(self, template):
        """What the template wants of the whole file. Raises ValueError when the file is none such."""
        kept = self._item(self._token(), template, 0)
        if self._token() != _NOTHING:
            raise ValueError
        return kept

    def value_at(self, place, template):
        """What the template wants of the value that begins there; `canonical` is given all of it."""
        self._file.seek(place)
        self._put = self._canonical or _nowhere
        return self._item(self._token(), template, 1)

    def _item(self, byte, template, depth):
        """One function for every kind of value: each call within another takes C stack, of which an ESP32 has 16 KB."""
        made = None
        begin = self._read - self._end + self._at - 1
        is_place = template is PLACE
        if template is not None:
            self._left -= 1
        if is_place:
            template = None
        if isinstance(template, tuple):
            template, made = template
        expected = byte
        if isinstance(template, dict):
            expected = _BRACE
        elif isinstance(template, list):
            expected = _BRACKET
        elif template not in (None, True) and byte in (_BRACE, _BRACKET):
            expected = _NOTHING
        if byte != expected or byte == _NOTHING or depth > _MOST_DEPTH or not self._left:
            raise ValueError
        if byte == _BRACE:
            value = self._object(template, depth + 1)
        elif byte == _BRACKET:
            value = self._array(template, depth + 1)
        else:
            if byte != _QUOTE:
                value = self._word(byte)
            elif template is None:
                value = self._string(False)
            else:
                value = str(self._string(True), "utf-8")
            if template not in (None, True, type(value)):
                raise ValueError
        if made is not None:
            return made(value)
        return begin if is_place else value

    def _object(self, template, depth):
        kept = {}
        last = child = None
        self._put(b"{")
        byte = self._token()
        while byte != _BRACE_END:
            if last is not None:
                byte = self._comma(byte)
            if byte != _QUOTE:
                raise ValueError
            name = self._string(True)
            if last is not None and name <= last:
                raise ValueError
            last = name
            if self._token() != _COLON:
                raise ValueError
            self._put(b":")
            if template is not None:
                name = str(name, "utf-8")
                child = True if template is True else template.get(name, template.get("*"))
            put = self._put
            if depth == 1 and last == b"signed":
                self._put = self._canonical or _nowhere
            value = self._item(self._token(), child, depth)
            self._put = put
            if child is not None and value is not None:
                kept[name] = value
            byte = self._token()
        self._put(b"}")
        return kept

    def _array(self, template, depth):
        kept = []
        child = template if template is None or template is True else template[0]
        is_first = True
        self._put(b"[")
        byte = self._token()
        while byte != _BRACKET_END:
            if not is_first:
                byte = self._comma(byte)
            is_first = False
            value = self._item(byte, child, depth)
            if child is not None and value is not None:
                kept.append(value)
            byte = self._token()
        self._put(b"]")
        return kept

    def _comma(self, byte):
        if byte != _COMMA:
            raise ValueError
        self._put(b",")
        return self._token()

    def _string(self, is_kept):
        """The content of the string whose first quote was read, as UTF-8; what is not kept may be of any length."""
        have = 0
        self._put(b'"')
        while True:
            if self._at == self._end and not self._fill():
                raise ValueError
            stop = self._find(b'"', self._find(b"\\", self._end))
            if stop > self._at:
                piece = _view[self._at : stop]
                if min(piece) < 32:
                    raise ValueError
                self._at = stop
            elif self._byte() == _QUOTE:
                break
            else:
                piece = self._escape()
                if piece in (b'"', b"\\"):
                    self._put(b"\\")
            self._put(piece)
            if is_kept:
                if have + len(piece) > _MOST_TEXT:
                    raise ValueError
                _room[have : have + len(piece)] = piece
                have += len(piece)
        self._put(b'"')
        return bytes(_texts[:have])

    def _find(self, what, stop):
        found = _buffer.find(what, self._at, stop)
        return stop if found < 0 else found

    def _escape(self):
        byte = self._byte()
        at = _ESCAPED.find(bytes((byte,)))
        if at >= 0:
            return _MEANT[at : at + 1]
        if byte != _LETTER_U:
            raise ValueError
        code = self._unit()
        if 0xD800 <= code < 0xDC00 and self._byte() == _BACKSLASH and self._byte() == _LETTER_U:
            low = self._unit()
            if 0xDC00 <= low < 0xE000:
                code = 0x10000 + (code - 0xD800 << 10) + low - 0xDC00
        if 0xD800 <= code < 0xE000:
            raise ValueError  # half of a pair
        return chr(code).encode()

    def _unit(self):
        return int.from_bytes(binascii.unhexlify(bytes([self._byte() for _ in range(4)])), "big")

    def _word(self, byte):
        """An integer, true, false or null. Canonical JSON has no other numbers."""
        word = bytearray()
        while byte in _WORD and len(word) < _MOST_DIGITS:
            word.append(byte)
            byte = self._byte()
        self._at -= 1
        self._put(word)
        text = str(word, "ascii")
        if text in ("true", "false"):
            return text == "true"
        if text == "null":
            return None
        number = int(text)
        if str(number) != text:
            raise ValueError
        return number

    # --- bytes ---

    def _token(self):
        """The next byte that is no space; _NOTHING at the end."""
        while True:
            if self._at == self._end and not self._fill():
                return _NOTHING
            byte = _buffer[self._at]
            self._at += 1
            if byte not in _SPACE:
                return byte

    def _byte(self):
        if self._at == self._end and not self._fill():
            raise ValueError
        self._at += 1
        return _buffer[self._at - 1]

    def _fill(self):
        count = self._file.readinto(_buffer)
        if not count:
            return False
        if self._raw is not None:
            self._raw(_view[:count])
        self._read += count
        self._at, self._end = 0, count
        return True


def _nowhere(_):
    pass
