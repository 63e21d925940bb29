# The one way from the built-in modules' stand-ins to the host. Not a module of an ESP32.
from host import call as _call
from uctypes import addressof as address_of


def call(operation, payload=""):
    result = _call(operation, payload)
    if result[:1] == "!":
        if result[1:2] == "V":
            raise ValueError(result[2:])
        if result == "!K":
            raise KeyboardInterrupt
        raise OSError(int(result[1:]))
    return result
