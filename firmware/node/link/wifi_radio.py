"""What is needed of Wi-Fi while the node talks, and to end that. Joining takes much more: node/link/wifi.py."""


class Radio:
    """The part of a bearer (link/bearer.py) that stays."""

    def __init__(self, wlan):
        self._wlan = wlan

    def signal_dbm(self):
        try:
            return int(self._wlan.status("rssi"))
        except Exception:
            return None

    def off(self):
        attempt(self._wlan.disconnect)
        attempt(self._wlan.active, False)


def attempt(step, *arguments):
    """Whatever the driver makes of it: an error of ESP-IDF that MicroPython does not know is a RuntimeError."""
    try:
        step(*arguments)
    except Exception:
        pass
