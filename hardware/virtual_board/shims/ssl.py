from _board import address_of as _address, call as _call
from _stream import Stream as _Stream

PROTOCOL_TLS_CLIENT = 0
PROTOCOL_TLS_SERVER = 1
CERT_NONE = 0
CERT_OPTIONAL = 1
CERT_REQUIRED = 2


class SSLSocket(_Stream):
    def __init__(self, sock):
        self._id = sock._id
        self._raw = sock

    # The raw socket's time-out is the one that counts, as on an ESP32 (no `settimeout` of its own).
    @property
    def _ms(self):
        return self._raw._ms

    def setblocking(self, value):
        self._raw.setblocking(value)

    def cipher(self):
        return tuple(_call("tls_cipher", self._id).split())

    def close(self):
        self._raw.close()


class SSLContext:
    def __init__(self, protocol):
        self.verify_mode = CERT_REQUIRED if protocol == PROTOCOL_TLS_CLIENT else CERT_NONE
        self._ca = b""
        self._cert = b""
        self._key = b""

    def load_verify_locations(self, cadata):
        self._ca += bytes(cadata)

    def load_cert_chain(self, certfile, keyfile):
        self._cert = certfile
        self._key = keyfile

    def wrap_socket(
        self, sock, *, server_side=False, do_handshake_on_connect=True, server_hostname=None
    ):
        if self.verify_mode == CERT_REQUIRED and server_hostname is None:
            raise ValueError("CERT_REQUIRED requires server_hostname")
        places = []
        for data in (self._ca, self._cert, self._key):
            places.append(str(_address(data)) if data else "0")
            places.append(str(len(data)))
        _call(
            "tls_wrap",
            "\0".join(
                [sock._id, "1" if self.verify_mode == CERT_REQUIRED else "0", server_hostname or ""]
                + places
            ),
        )
        if do_handshake_on_connect:
            _call("tls_handshake", "%s %d" % (sock._id, sock._ms))
        return SSLSocket(sock)


def wrap_socket(sock, server_side=False, key=None, cert=None, cert_reqs=CERT_NONE, cadata=None, server_hostname=None, do_handshake=True):
    context = SSLContext(PROTOCOL_TLS_CLIENT)
    context.verify_mode = cert_reqs
    if cadata:
        context.load_verify_locations(cadata)
    if cert:
        context.load_cert_chain(cert, key)
    return context.wrap_socket(
        sock, server_hostname=server_hostname, do_handshake_on_connect=do_handshake
    )
