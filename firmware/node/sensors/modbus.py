"""Any Modbus RTU probe, described by its registers: numbers as the probe sent them, or the reason why not.

`options` say what to read ([first register, count]), where a value stands in it ([register, kind, order, lowest, highest,
raw, reason, raw, reason …] for each key), what has to be right besides ([register, kind, order, lowest, highest, reason, and
the positions of the keys that it speaks for]), and which requests set a measurement or a wiper going.
"""

import struct
import time

from micropython import const

from node import errors, rtc_memory
from node.bus.modbus import Modbus
from node.clock import Clock
from node.errors import SensorError
from node.sensors.supplied import Supplied

_ATTEMPTS = const(3)
_WIPE_AGE = "wipe_age"
# The four bytes of a float32 or a 32-bit integer as they arrive, by what stands where: a is the highest.
_ORDERS = {"abcd": (0, 1, 2, 3), "cdab": (2, 3, 0, 1), "badc": (1, 0, 3, 2), "dcba": (3, 2, 1, 0)}
_FORMATS = {"u8": ">B", "u16": ">H", "s16": ">h", "u32": ">I", "s32": ">i", "f32": ">f"}


class RegisterProbe(Supplied):
    def __init__(self, pins, options):
        super().__init__(pins, options)
        self._is_asleep = "start" in options or "wipe" in options
        self._wipe_failure = errors.ERROR

    def start(self, now_ms):
        """Switch the probe on."""
        options = self._options
        self._supply.on()
        settle_ms = 0 if self._is_asleep else options["stabilise_ms"] + options["measure_ms"]
        self._wait(now_ms, options["warm_up_ms"] + settle_ms)

    def read(self, deadline):
        """A raw value or a reason for each key, or None when it has just been told to measure.

        Raises SensorError: timeout, frame, crc.
        """
        if self._is_asleep:
            self._is_asleep = False
            self._set_going(deadline)
            options = self._options
            self._wait(time.ticks_ms(), options["stabilise_ms"] + options["measure_ms"])
            return None
        return self._values(self._content(deadline))

    def _set_going(self, deadline):
        options = self._options
        if "start" in options:
            self._read(options["start"][0], options["start"][1], deadline)
        if "wipe" in options:
            register, every_s = options["wipe"]
            age_s = self._wipe_age_s()
            # Wakes come a little early or late; one that comes early counts.
            if age_s is None or age_s * 20 >= every_s * 19:
                self._wipe(register, deadline)

    def _wipe(self, register, deadline):
        """A wiper that does not obey spoils no measurement: its age goes on growing, for the server to judge."""
        try:
            self._ask(Modbus.command, (self._options["address"], register), deadline)
        except SensorError as error:
            self._wipe_failure = error.code
            return
        state = rtc_memory.load()
        state.wiped_ms[self._place()] = Clock(state).uptime_ms()

    def _wipe_age_s(self):
        """Seconds since the wiper last obeyed; None when nobody knows."""
        state = rtc_memory.load()
        wiped_ms = state.wiped_ms.get(self._place())
        if wiped_ms is None:
            return None
        return max(0, Clock(state).uptime_ms() - wiped_ms) // 1000

    def _place(self):
        return self._options["uart"] << 8 | self._options["address"]

    def _content(self, deadline):
        """The up to four bytes that begin at a register, by register."""
        content = {}
        for first, count in self._options["reads"]:
            data = self._read(first, count, deadline)
            for index in range(count):
                content[first + index] = data[2 * index :][:4]
        return content

    def _read(self, first, count, deadline):
        options = self._options
        place = (options["address"], options["function"], first, count)
        return self._ask(Modbus.read_registers, place, deadline)

    def _ask(self, request, arguments, deadline):
        """What the request gives, tried again a few times. The bus is free in between: others hang on it too."""
        for attempt in range(_ATTEMPTS):
            bus = Modbus(self._pins, self._options)
            try:
                return request(bus, *arguments, deadline)
            except SensorError:
                if attempt == _ATTEMPTS - 1 or not deadline.left_ms():
                    raise
            finally:
                bus.close()
        raise SensorError(errors.TIMEOUT)

    def _values(self, content):
        values = [self._value(item, content) for item in self._options["registers"]]
        for guard in self._options["guards"]:
            register, kind, order, lowest, highest, reason = guard[:6]
            _, number = _decoded(content[register], kind, order)
            if not lowest <= number <= highest:
                for index in guard[6:]:
                    values[index] = reason
        return values

    def _value(self, item, content):
        if item[0] == _WIPE_AGE:
            age_s = self._wipe_age_s()
            return self._wipe_failure if age_s is None else age_s
        register, kind, order, lowest, highest = item[:5]
        value, number = _decoded(content[register], kind, order)
        for at in range(5, len(item), 2):
            if number == item[at]:
                return item[at + 1]
        # Not a number fails every comparison.
        return value if lowest <= number <= highest else errors.RANGE


def _decoded(data, kind, order):
    """(what goes out, the number that it stands for): a float stays its four bytes, highest first."""
    if kind[1:] == "32":
        data = bytes([data[at] for at in _ORDERS[order]])
    (number,) = struct.unpack_from(_FORMATS[kind], data)
    return (data if kind == "f32" else number), number


Driver = RegisterProbe
