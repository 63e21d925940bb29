from _board import address_of as _address, call as _call

AF_INET = 2
AF_INET6 = 10
SOCK_STREAM = 1
SOCK_DGRAM = 2
SOCK_RAW = 3
IPPROTO_TCP = 6
IPPROTO_UDP = 17
IPPROTO_IP = 0
SOL_SOCKET = 4095
SO_REUSEADDR = 4
TCP_NODELAY = 1


def getaddrinfo(host, port, af=0, type=0, proto=0, flags=0):
    address = _call("resolve", "%s %d" % (host, port))
    return [(AF_INET, type or SOCK_STREAM, proto, "", (address, port))]


class socket:
    def __init__(self, af=AF_INET, type=SOCK_STREAM, proto=IPPROTO_TCP):
        self._id = _call("sock_open", "udp" if type == SOCK_DGRAM else "tcp")
        self._ms = -1

    def fileno(self):
        return int(self._id)

    def settimeout(self, value):
        self._ms = -1 if value is None else int(value * 1000)

    def setblocking(self, value):
        self._ms = -1 if value else 0

    def setsockopt(self, level, optname, value):
        pass

    def connect(self, address):
        _call("sock_connect", "%s %s %d %d" % (self._id, address[0], address[1], self._ms))

    def bind(self, address):
        pass

    def send(self, data):
        if isinstance(data, str):
            data = data.encode()
        return int(_call("sock_send", "%s %d %d %d" % (self._id, _address(data), len(data), self._ms)))

    def sendall(self, data):
        if isinstance(data, str):
            data = data.encode()
        view = memoryview(data)
        while len(view):
            view = view[self.send(view) :]

    def write(self, data, size=None):
        if size is not None:
            data = memoryview(data)[:size]
        try:
            return self.send(data)
        except OSError as error:
            if error.errno == 11:
                return None
            raise

    def readinto(self, buf, nbytes=None):
        size = len(buf) if nbytes is None else min(nbytes, len(buf))
        try:
            return int(_call("sock_recv", "%s %d %d %d" % (self._id, _address(buf), size, self._ms)))
        except OSError as error:
            if error.errno == 11:
                return None
            raise

    def recv_into(self, buf, nbytes=None):
        size = len(buf) if nbytes is None else min(nbytes, len(buf))
        return int(_call("sock_recv", "%s %d %d %d" % (self._id, _address(buf), size, self._ms)))

    def recv(self, bufsize):
        buf = bytearray(bufsize)
        return bytes(buf[: self.recv_into(buf)])

    def read(self, size=-1):
        out = b""
        while size < 0 or len(out) < size:
            buf = bytearray(256 if size < 0 else size - len(out))
            got = self.readinto(buf)
            if got is None:
                return out or None
            if not got:
                break
            out += bytes(buf[:got])
        return out

    def readline(self):
        line = b""
        while not line.endswith(b"\n"):
            part = self.read(1)
            if not part:
                break
            line += part
        return line

    def sendto(self, data, address):
        return int(
            _call(
                "sock_sendto",
                "%s %d %d %s %d" % (self._id, _address(data), len(data), address[0], address[1]),
            )
        )

    def recvfrom(self, bufsize):
        buf = bytearray(bufsize)
        size, ip, port = _call(
            "sock_recvfrom", "%s %d %d %d" % (self._id, _address(buf), bufsize, self._ms)
        ).split()
        return bytes(buf[: int(size)]), (ip, int(port))

    def makefile(self, mode="rb", buffering=0):
        return self

    def close(self):
        _call("sock_close", self._id)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()
