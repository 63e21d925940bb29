from _board import address_of as _address, call as _call
from _stream import Stream as _Stream

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


class socket(_Stream):
    def __init__(self, af=AF_INET, type=SOCK_STREAM, proto=IPPROTO_TCP):
        self._id = _call("sock_open", "udp" if type == SOCK_DGRAM else "tcp")
        self._ms = -1

    def fileno(self):
        return int(self._id)

    def settimeout(self, value):
        self._ms = -1 if value is None else int(value * 1000)

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
        view = memoryview(data.encode() if isinstance(data, str) else data)
        while len(view):
            view = view[self.send(view) :]

    def recv(self, bufsize):
        buf = bytearray(bufsize)
        size = int(_call("sock_recv", "%s %d %d %d" % (self._id, _address(buf), bufsize, self._ms)))
        return bytes(buf[:size])

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

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()
