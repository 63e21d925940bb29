from _board import call as _call

STA_IF = 0
AP_IF = 1
STAT_IDLE = 1000
STAT_CONNECTING = 1001
STAT_GOT_IP = 1010
STAT_NO_AP_FOUND = 201
STAT_WRONG_PASSWORD = 202
STAT_BEACON_TIMEOUT = 200
STAT_ASSOC_FAIL = 203
STAT_HANDSHAKE_TIMEOUT = 204

_hostname = "mpy-esp32"


def hostname(name=None):
    global _hostname
    if name is None:
        return _hostname
    _hostname = name


class WLAN:
    IF_STA = 0
    IF_AP = 1
    PM_NONE = 0
    PM_PERFORMANCE = 1
    PM_POWERSAVE = 2
    _active = False

    def __init__(self, interface_id=0):
        pass

    def active(self, is_active=None):
        if is_active is not None:
            WLAN._active = bool(is_active)
            _call("wifi_active", "1" if is_active else "0")
        return WLAN._active

    def connect(self, ssid=None, key=None, *, bssid=None):
        if bssid is not None and len(bssid) != 6:
            raise ValueError
        parts = [_text(ssid), _text(key), bssid.hex() if bssid else ""]
        _call("wifi_connect", "\0".join(parts))

    def disconnect(self):
        _call("wifi_disconnect")

    def isconnected(self):
        return _call("wifi_status") == "1010"

    def status(self, param=None):
        if param == "rssi":
            return int(_call("wifi_info", "rssi"))
        return int(_call("wifi_status"))

    def ifconfig(self, ip_mask_gateway_dns=None):
        if ip_mask_gateway_dns is None:
            return (_call("wifi_info", "ip"), "255.255.255.0", "10.11.12.1", "10.11.12.1")
        _call("wifi_static", " ".join(ip_mask_gateway_dns))

    def ipconfig(self, *args, **kwargs):
        if kwargs.get("dhcp4"):
            _call("wifi_dhcp")

    def config(self, param=None, **kwargs):
        if param == "mac":
            return bytes.fromhex(_call("wifi_info", "mac"))
        if param in ("ssid", "essid"):
            return _call("wifi_info", "ssid")
        if param in ("rssi", "channel"):
            return int(_call("wifi_info", param))
        if param is not None:
            return 0
        if "reconnects" in kwargs:
            _call("wifi_reconnects", str(kwargs["reconnects"]))

    def scan(self):
        found = []
        for line in _call("wifi_scan").split("\n"):
            if line:
                name, bssid, channel, rssi, security, hidden = line.split()
                ssid = b"" if name == "-" else bytes.fromhex(name)
                found.append((ssid, bytes.fromhex(bssid), int(channel), int(rssi), int(security), int(hidden)))
        return found


def _text(value):
    return value if isinstance(value, str) else (value or b"").decode()
