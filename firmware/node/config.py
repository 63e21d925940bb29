"""What the node is told: its identity, its link, its probes (NVS), and the values that the server desires.

Desired values are kept in NVS too, beside what was provisioned, and hold over it. A value out of bounds is never kept.
"""

import binascii
import hashlib

import esp32
from micropython import const

from node import cbor
from node.errors import NotProvisioned

_MAX_BLOB = const(1900)
_DESIRED = "des"

# name: (lowest, highest), seconds
_BOUNDS = {"sample_s": (60, 86_400), "publish_s": (60, 86_400)}


class Config:
    """`node_id`, `link` and `node` as provisioned; `version`, `sample_s` and `publish_s` as desired last."""

    def __init__(self):
        self.node_id = str(blob("id", "node_id"), "utf-8")
        self.link = cbor.decode(blob("cfg", "link"))
        self.node = cbor.decode(blob("cfg", "node"))
        self.version = self.node["version"]
        self.values = {name: self.node[name] for name in _BOUNDS}
        self._load_desired()

    @property
    def sample_s(self):
        return self.values["sample_s"]

    @property
    def publish_s(self):
        return self.values["publish_s"]

    @property
    def every_s(self):
        """{first channel key of a probe: seconds between its readings}, of those that are not read at every instant."""
        return self.node.get("every_s", {})

    @property
    def limits(self):
        """[[channel key, kind, value, clear], …] as node/limits.py has them."""
        return self.node.get("limits", ())

    @property
    def urgent_s(self):
        """How often the node samples and publishes while a limit is crossed; never less often than it samples anyway."""
        return min(self.node.get("urgent_s", self.sample_s), self.sample_s)

    @property
    def thresholds_mv(self):
        """Battery voltages below which the node publishes rarely, leaves its radio off, stops; None where it never does."""
        return [self.node.get(name) for name in ("low_mv", "mute_mv", "stop_mv")]

    @property
    def lamp_pin(self):
        """The lamp for whoever stands before the node; None without one."""
        return self.node.get("led")

    @property
    def button_pin(self):
        """The button that begins field mode; None without one."""
        return self.node.get("button")

    def sha256(self):
        """Hex hash over the deterministic CBOR of {"version", "values"}."""
        content = cbor.encode({"version": self.version, "values": self.values})
        return str(binascii.hexlify(hashlib.sha256(content).digest()), "ascii")

    def apply(self, payload):
        """Take a desired state; None, or what is wrong with it. What it says beside the configuration is passed over."""
        try:
            desired = cbor.decode(payload)["config"]
            version, values = desired["version"], desired["values"]
            taken = {name: values.get(name, self.node[name]) for name in _BOUNDS}
        except (ValueError, KeyError, TypeError, AttributeError):
            return "des malformed"
        if type(version) is not int or not 0 <= version < 1 << 31 or not _are_possible(taken):
            return "des out of bounds"
        if version != self.version or taken != self.values:
            self.version, self.values = version, taken
            kept = cbor.encode([version, [taken[name] for name in sorted(taken)]])
            nvs = esp32.NVS("cfg")
            nvs.set_blob(_DESIRED, kept)
            nvs.commit()
        return None

    def _load_desired(self):
        try:
            version, values = cbor.decode(blob("cfg", _DESIRED))
            values = dict(zip(sorted(_BOUNDS), values))
        except (NotProvisioned, ValueError, TypeError):
            return
        if _are_possible(values):
            self.version, self.values = version, values


def blob(namespace, key):
    """A blob of NVS. Raises NotProvisioned when it is not there."""
    buffer = bytearray(_MAX_BLOB)
    try:
        length = esp32.NVS(namespace).get_blob(key, buffer)
    except OSError:
        raise NotProvisioned(namespace + "." + key)
    return bytes(buffer[:length])


def _are_possible(values):
    for name, (lowest, highest) in _BOUNDS.items():
        value = values.get(name)
        if type(value) is not int or not lowest <= value <= highest:
            return False
    return values["sample_s"] <= values["publish_s"]
