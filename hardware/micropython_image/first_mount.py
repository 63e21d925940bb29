"""Mount the file system; retry, then sleep longer and longer, and only as the last step make a new one.

What cannot be mounted today may be mounted tomorrow: a battery that is nearly empty or a cold morning make flash fail too.
Identity and configuration lie in NVS and outlive a new file system; readings on it that the fleet has not are lost with it.
"""

import time

_TRIES = 3
_PAUSE_MS = 100
# After each boot that could not mount, in seconds: together some ten hours.
NAPS_S = (60, 300, 1_800, 7_200, 25_200)


def bring_up(disk, failures):
    """Seconds to sleep before the next boot, 0 when the file system is mounted.

    `disk` has mount(), make() and is_blank(), `failures` has load() and store(number); the number outlives power loss.
    """
    for _ in range(_TRIES):
        try:
            disk.mount()
        except OSError:
            time.sleep_ms(_PAUSE_MS)
            continue
        if failures.load():
            failures.store(0)
        return 0
    failed = failures.load()
    if not disk.is_blank() and failed < len(NAPS_S):
        failures.store(failed + 1)
        return NAPS_S[failed]
    try:
        disk.make()
        disk.mount()
    except OSError:
        return NAPS_S[-1]
    failures.store(0)
    return 0


class _Disk:
    def __init__(self):
        from flashbdev import bdev

        self._device = bdev

    def mount(self):
        import vfs

        vfs.mount(self._device, "/")

    def make(self):
        import vfs

        vfs.VfsLfs2.mkfs(self._device)

    def is_blank(self):
        """Whether it was never written: a new chip."""
        block = bytearray(self._device.ioctl(5, 0))
        self._device.readblocks(0, block)
        return all(byte == 0xFF for byte in block)


class _Failures:
    _KEY = "unmounted"

    def __init__(self):
        import esp32

        self._nvs = esp32.NVS("boot")

    def load(self):
        try:
            return self._nvs.get_i32(self._KEY)
        except OSError:
            return 0

    def store(self, number):
        self._nvs.set_i32(self._KEY, number)
        self._nvs.commit()


def run():
    """Returns with the file system mounted, or sleeps and does not return."""
    nap_s = bring_up(_Disk(), _Failures())
    if nap_s:
        import machine

        machine.deepsleep(nap_s * 1000)
