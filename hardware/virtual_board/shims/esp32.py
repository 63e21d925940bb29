from _board import address_of as _address, call as _call

HEAP_DATA = 4
HEAP_EXEC = 1


def idf_heap_info(capabilities):
    # (total, free, largest block, lowest free) of an ESP32 with Wi-Fi up; the board has no C heap.
    return [(163840, 81920, 65536, 61440)]


def raw_temperature():
    return 128


WAKEUP_ALL_LOW = False
WAKEUP_ANY_HIGH = True


def wake_on_ext0(pin=None, level=None):
    if pin is None or level is None:
        _call("wake_on", "")
    else:
        _call("wake_on", "%d %d" % (pin._id, level))


class NVS:
    def __init__(self, namespace):
        self._name = namespace + "\0"

    def get_i32(self, key):
        return int(_call("nvs_get_i32", self._name + key))

    def set_i32(self, key, value):
        _call("nvs_set_i32", self._name + key + "\0" + str(value))

    def set_blob(self, key, value):
        _call("nvs_set_blob", "%s%s\0%d\0%d" % (self._name, key, _address(value), len(value)))

    def get_blob(self, key, buffer):
        size = int(_call("nvs_get_blob", "%s%s\0%d\0%d" % (self._name, key, _address(buffer), len(buffer))))
        if size > len(buffer):
            raise OSError(-0x110C)
        return size

    def erase_key(self, key):
        _call("nvs_erase", self._name + key)

    def commit(self):
        pass


class Partition:
    BOOT = 0
    RUNNING = 1
    TYPE_APP = 0
    TYPE_DATA = 1

    def __init__(self, id, block_size=4096):
        label = _call("app_running") if isinstance(id, int) else id
        for part in _call("partitions").split(";"):
            kind, subtype, offset, size, name = part.split()
            if name == label:
                self._info = (int(kind), int(subtype), int(offset), int(size), name, False)
                return
        raise OSError(2)

    def info(self):
        return self._info

    def get_next_update(self):
        return Partition("ota_1" if self._info[4] == "ota_0" else "ota_0")

    def set_boot(self):
        _call("app_boot", self._info[4])

    def readblocks(self, block_num, buf, offset=0):
        self._move("app_read", block_num, buf, offset)

    def writeblocks(self, block_num, buf, offset=None):
        if offset is None:
            for block in range(block_num, block_num + (len(buf) + 4095) // 4096):
                self.ioctl(6, block)
        self._move("app_write", block_num, buf, offset or 0)

    def ioctl(self, cmd, arg):
        if cmd == 4:
            return self._info[3] // 4096
        if cmd == 5:
            return 4096
        if cmd == 6:
            _call("app_erase", "%s %d" % (self._info[4], arg * 4096))
            return 0

    def _move(self, operation, block_num, buf, offset):
        at = block_num * 4096 + offset
        _call(operation, "%s %d %d %d" % (self._info[4], at, _address(buf), len(buf)))

    @staticmethod
    def mark_app_valid_cancel_rollback():
        _call("app_keep")
