from micropython import const as _const
from _board import address_of as _address, call as _call

PWRON_RESET = 1
HARD_RESET = 2
WDT_RESET = 3
DEEPSLEEP_RESET = 4
SOFT_RESET = 5
SLEEP = 2
DEEPSLEEP = 4
PIN_WAKE = 2
EXT0_WAKE = 2
EXT1_WAKE = 3
TIMER_WAKE = 4
TOUCHPAD_WAKE = 5
ULP_WAKE = 6


def deepsleep(time_ms=-1):
    import gc

    gc.collect()
    _call("heap", str(gc.mem_free()))
    _call("deepsleep", str(int(time_ms)))


def lightsleep(time_ms=0):
    _call("advance", str(int(time_ms) * 1000))


def idle():
    _call("advance", "1000")


def reset():
    _call("reset", "hard")


def soft_reset():
    _call("reset", "soft")


def reset_cause():
    return int(_call("causes").split()[0])


def wake_reason():
    return int(_call("causes").split()[1])


def unique_id():
    return bytes.fromhex(_call("unique_id"))


def freq(hz=None):
    return 160000000


def disable_irq():
    return 0


def enable_irq(state=0):
    pass


class Pin:
    IN = 1
    OUT = 3
    OPEN_DRAIN = 7
    PULL_DOWN = 1
    PULL_UP = 2
    DRIVE_0 = 0
    DRIVE_1 = 1
    DRIVE_2 = 2
    DRIVE_3 = 3
    IRQ_RISING = 1
    IRQ_FALLING = 2
    WAKE_LOW = 4
    WAKE_HIGH = 5

    def __init__(self, id, mode=-1, pull=-1, *, value=None, drive=0, hold=None):
        self._id = id._id if isinstance(id, Pin) else id
        self.init(mode, pull, value=value, drive=drive, hold=hold)

    def init(self, mode=-1, pull=-1, *, value=None, drive=0, hold=None):
        if mode == Pin.IN or (mode == Pin.OPEN_DRAIN and value != 0):
            _call("pin", "%d in" % self._id)
        elif mode == Pin.OUT or mode == Pin.OPEN_DRAIN:
            _call("pin", "%d out %d" % (self._id, 0 if value is None else 1 if value else 0))

    def value(self, x=None):
        if x is None:
            return int(_call("pin", "%d get" % self._id))
        _call("pin", "%d out %d" % (self._id, 1 if x else 0))

    __call__ = value

    def on(self):
        self.value(1)

    def off(self):
        self.value(0)

    def irq(self, handler=None, trigger=3, *, wake=None, hard=False):
        return None

    def __repr__(self):
        return "Pin(%d)" % self._id


def _pin_number(pin):
    return pin._id if isinstance(pin, Pin) else pin


class ADC:
    ATTN_0DB = 0
    ATTN_2_5DB = 1
    ATTN_6DB = 2
    ATTN_11DB = 3
    WIDTH_9BIT = 9
    WIDTH_10BIT = 10
    WIDTH_11BIT = 11
    WIDTH_12BIT = 12

    def __init__(self, id, *, atten=0):
        self._id = _pin_number(id)
        self._atten = atten
        _call("pin", "%d in" % self._id)

    def init(self, *, atten=0):
        self._atten = atten

    def atten(self, atten):
        self._atten = atten

    def width(self, bits):
        pass

    def read_uv(self):
        return int(_call("adc", "%d %d" % (self._id, self._atten)))

    def read_u16(self):
        return min(65535, self.read_uv() * 65535 // (950000, 1250000, 1750000, 3100000)[self._atten])

    def read(self):
        return self.read_u16() >> 4


class RTC:
    def datetime(self, datetimetuple=None):
        if datetimetuple is None:
            return tuple([int(n) for n in _call("rtc_get").split()])
        _call("rtc_set", " ".join([str(int(n)) for n in datetimetuple]))

    def init(self, datetime):
        self.datetime(datetime)

    def memory(self, data=None):
        if data is None:
            out = bytearray(int(_call("rtc_memory", "size")))
            if out:
                _call("rtc_memory", "get %d" % _address(out))
            return bytes(out)
        _call("rtc_memory", "set %d %d" % (_address(data), len(data)))


class WDT:
    def __init__(self, *, id=0, timeout=5000):
        if timeout < 1:
            raise ValueError("WDT timeout too short")
        _call("wdt", str(timeout))

    def feed(self):
        _call("feed")


class UART:
    INV_TX = 32
    INV_RX = 4
    INV_RTS = 64
    INV_CTS = 8
    RTS = 1
    CTS = 2

    def __init__(self, id, baudrate=115200, bits=8, parity=None, stop=1, **kwargs):
        self._id = id
        self._timeout = 0
        self._timeout_char = 0
        self.init(baudrate, bits, parity, stop, **kwargs)

    def init(
        self,
        baudrate=115200,
        bits=8,
        parity=None,
        stop=1,
        *,
        tx=-1,
        rx=-1,
        rts=-1,
        cts=-1,
        txbuf=256,
        rxbuf=256,
        timeout=0,
        timeout_char=0,
        invert=0,
        flow=0
    ):
        self._timeout = timeout
        self._timeout_char = timeout_char
        even_odd = -1 if parity is None else parity & 1
        _call(
            "uart_init",
            "%d %d %d %d %d %d" % (self._id, baudrate, bits, even_odd, stop, invert),
        )

    def deinit(self):
        _call("uart_deinit", str(self._id))

    def any(self):
        return int(_call("uart_any", str(self._id)))

    def readinto(self, buf, nbytes=None):
        size = len(buf) if nbytes is None else min(nbytes, len(buf))
        got = 0
        wait_ms = self._timeout
        while got < size:
            if not int(_call("uart_wait", "%d %d" % (self._id, wait_ms * 1000))):
                break
            got += int(_call("uart_read", "%d %d %d" % (self._id, _address(buf) + got, size - got)))
            wait_ms = self._timeout_char
        return got or None

    def read(self, nbytes=None):
        if nbytes is None:
            nbytes = self.any()
            if not nbytes:
                int(_call("uart_wait", "%d %d" % (self._id, self._timeout * 1000)))
                nbytes = self.any()
        buf = bytearray(nbytes)
        got = self.readinto(buf) if nbytes else None
        return bytes(buf[:got]) if got else None

    def readline(self):
        line = b""
        while not line.endswith(b"\n"):
            part = self.read(1)
            if part is None:
                break
            line += part
        return line or None

    def write(self, buf):
        if isinstance(buf, str):
            buf = buf.encode()
        return int(_call("uart_write", "%d %d %d" % (self._id, _address(buf), len(buf))))

    def flush(self):
        _call("uart_flush", str(self._id))

    def txdone(self):
        return _call("uart_txdone", str(self._id)) == "1"

    def sendbreak(self):
        pass


class I2C:
    def __init__(self, id, *, scl=None, sda=None, freq=400000, timeout=50000):
        self._id = id
        _call("i2c_init", "%d %d %d" % (id, freq, timeout))

    def scan(self):
        return [int(address) for address in _call("i2c_scan", str(self._id)).split()]

    def writeto(self, addr, buf, stop=True):
        _call("i2c_write", "%d %d %d %d" % (self._id, addr, _address(buf), len(buf)))
        return len(buf)

    def readfrom_into(self, addr, buf, stop=True):
        _call("i2c_read", "%d %d %d %d" % (self._id, addr, _address(buf), len(buf)))

    def readfrom(self, addr, nbytes, stop=True):
        buf = bytearray(nbytes)
        self.readfrom_into(addr, buf)
        return bytes(buf)

    def writeto_mem(self, addr, memaddr, buf, *, addrsize=8):
        self.writeto(addr, bytes((memaddr,)) + buf)

    def readfrom_mem(self, addr, memaddr, nbytes, *, addrsize=8):
        self.writeto(addr, bytes((memaddr,)), False)
        return self.readfrom(addr, nbytes)

    def deinit(self):
        pass
