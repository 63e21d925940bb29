from _board import address_of as _address, call as _call


class OneWireError(Exception):
    pass


class OneWire:
    SEARCH_ROM = 0xF0
    MATCH_ROM = 0x55
    SKIP_ROM = 0xCC

    def __init__(self, pin):
        self.pin = pin
        self._number = pin._id

    def reset(self, required=False):
        present = _call("ow_reset", str(self._number)) == "1"
        if required and not present:
            raise OneWireError
        return present

    def readbit(self):
        return self.readbyte() & 1

    def readbyte(self):
        buf = bytearray(1)
        self.readinto(buf)
        return buf[0]

    def readinto(self, buf):
        _call("ow_read", "%d %d %d" % (self._number, _address(buf), len(buf)))

    def writebyte(self, value):
        self.write(bytes([value]))

    def write(self, buf):
        _call("ow_write", "%d %d %d" % (self._number, _address(buf), len(buf)))

    def select_rom(self, rom):
        self.reset()
        self.writebyte(self.MATCH_ROM)
        self.write(rom)

    def scan(self):
        # One device per pin on this board: READ ROM finds it.
        if not self.reset():
            return []
        self.writebyte(0x33)
        rom = bytearray(8)
        self.readinto(rom)
        return [rom] if not self.crc8(rom) else []

    def crc8(self, data):
        crc = 0
        for byte in data:
            crc ^= byte
            for _ in range(8):
                crc = (crc >> 1) ^ 0x8C if crc & 1 else crc >> 1
        return crc
