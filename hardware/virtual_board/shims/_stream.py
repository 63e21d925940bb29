# What plain and TLS sockets share. Not a module of an ESP32.
from _board import address_of as _address, call as _call


class Stream:
    def setblocking(self, value):
        self._ms = -1 if value else 0

    def _transfer(self, operation, buf, size):
        # As MicroPython's streams do: until all is through, the stream ends or nothing more goes now.
        done = 0
        start = _address(buf)
        while done < size:
            try:
                n = int(_call(operation, "%s %d %d %d" % (self._id, start + done, size - done, self._ms)))
            except OSError as error:
                if error.errno != 11:
                    raise
                return done or None
            if not n:
                break
            done += n
        return done

    def write(self, data):
        if isinstance(data, str):
            data = data.encode()
        return self._transfer("sock_send", data, len(data))

    def readinto(self, buf, nbytes=None):
        return self._transfer("sock_recv", buf, len(buf) if nbytes is None else min(nbytes, len(buf)))

    def read(self, size=-1):
        if size >= 0:
            buf = bytearray(size)
            got = self.readinto(buf)
            return None if got is None else bytes(buf[:got])
        out = b""
        while True:
            part = self.read(256)
            if not part:
                return out or part
            out += part

    def readline(self):
        line = b""
        while not line.endswith(b"\n"):
            part = self.read(1)
            if not part:
                break
            line += part
        return line

    def close(self):
        _call("sock_close", self._id)
