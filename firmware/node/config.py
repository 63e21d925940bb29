"""What the node is told: its identity, its link, its probes (NVS), and the values that the server desires.

What is desired holds over what was provisioned. It is kept as one record, written in one operation: whenever the power goes, the
whole old or the whole new configuration holds. How another one comes to hold: node/trial.py.

`des` in NVS: [version, values, failed wakes of the trial or None, [version, values] before the trial or None, [version, first bytes
of the hash, reason] of what was rolled back last or None, CRC-32 of what was provisioned then]. A node that was provisioned anew
begins anew: who mends a link at the bench must not find the old one desired.
"""

import binascii
import hashlib

import esp32
from micropython import const

from node import cbor
from node.errors import NotProvisioned

_MAX_BLOB = const(1900)
_NOT_FOUND = const(-0x1102)  # ESP_ERR_NVS_NOT_FOUND
_DESIRED = "des"
_FIELDS = const(6)
# Desired or not, these two are always part of what the hash covers.
_INTERVALS = ("sample_s", "publish_s")
_LINK = ("host", "port", "server_name", "wifi")


class Config:
    """`node_id` and `node` as provisioned; `link`, `version` and `values` as they hold now.

    `failures`, `before` and `rolled_back` as in the record; `is_fresh` while the talk goes on that a configuration came by, and
    says nothing about it; `fault`: name of the value for which the last one was refused (schema.py).
    """

    def __init__(self):
        self.node_id = str(blob("id", "node_id"), "utf-8")
        link, node = blob("cfg", "link"), blob("cfg", "node")
        self._provisioned = binascii.crc32(node, binascii.crc32(link))
        self._provisioned_link = cbor.decode(link)
        self.node = cbor.decode(node)
        self.is_fresh = False
        self.fault = None
        self._take(self._kept() or self._as_provisioned())

    @property
    def sample_s(self):
        return self.values["sample_s"]

    @property
    def publish_s(self):
        return self.values["publish_s"]

    @property
    def every_s(self):
        """{first channel key of a probe: seconds between its readings}, of those that are not read at every instant."""
        return self.desired("every_s", {})

    @property
    def limits(self):
        """[[channel key, kind, value, clear], …], numbers in the channel's raw unit."""
        return self.desired("limits", ())

    @property
    def urgent_s(self):
        """How often the node samples and publishes while a limit is crossed; never less often than it samples anyway."""
        return min(self.desired("urgent_s", self.sample_s), self.sample_s)

    @property
    def thresholds_mv(self):
        """Battery voltages below which the node publishes rarely, leaves its radio off, stops; None where it never does."""
        return [self.desired(name) for name in ("low_mv", "mute_mv", "stop_mv")]

    def desired(self, name, default=None):
        """A value as desired, else as provisioned, else the default."""
        return self.values.get(name, self.node.get(name, default))

    @property
    def lamp_pin(self):
        """The lamp for whoever stands before the node; None without one."""
        return self.node.get("led")

    @property
    def button_pin(self):
        """The button that begins field mode; None without one."""
        return self.node.get("button")

    @property
    def is_on_trial(self):
        return self.failures is not None

    @property
    def needs_proof(self):
        """True in a talk that has to show that the configuration on trial leads to the server."""
        return self.is_on_trial and not self.is_fresh

    @property
    def state(self):
        """(word, reason) for the state message: whether what was desired last is what holds."""
        if self.fault is not None:
            return "refused", self.fault
        if self.is_on_trial:
            return "trial", None
        if self.rolled_back is not None:
            return "rolled_back", self.rolled_back[2]
        return "confirmed", None

    def sha256(self):
        """Hex hash over the deterministic CBOR of {"version", "values"}; of Wi-Fi networks the names only."""
        return str(binascii.hexlify(digest(self.version, self.values)), "ascii")

    def apply(self, wanted, battery_mv):
        """Take a desired configuration, {"version", "values"}; None, or what is wrong with it."""
        self.fault = None
        try:
            version, values = wanted["version"], self.whole(wanted["values"])
            if version == self.version and values == self.values:
                return None
        except (ValueError, LookupError, TypeError, AttributeError):
            return "des malformed"
        from node import plan, schema

        self.fault = schema.fault(values, self.node, battery_mv)
        del schema
        plan.forget_done()  # one after the other: both would be too much beside a talk
        if self.fault is not None:
            return "des " + self.fault
        from node import trial

        return trial.begin(self, version, values)

    def note_talk(self, state, is_good):
        """How the talk went, for the configuration on trial if there is one."""
        if self.is_on_trial:
            from node import trial

            trial.note_talk(self, state, is_good)

    def note_failure(self, state, reason):
        """The wake before failed, which is held against a configuration on trial."""
        if self.is_on_trial:
            from node import trial

            trial.note_failure(self, state, reason)

    def forget(self):
        """Be as provisioned again."""
        try:
            nvs = esp32.NVS("cfg")
            nvs.erase_key(_DESIRED)
            nvs.commit()
        except OSError:
            pass  # nothing was kept
        self._take(self._as_provisioned())

    def keep(self, record):
        """In one operation: whenever the power goes, the whole record or the whole one before it is there."""
        nvs = esp32.NVS("cfg")
        nvs.set_blob(_DESIRED, cbor.encode(record + [self._provisioned]))
        nvs.commit()
        self._take(record)

    def whole(self, values):
        """The values with both intervals, wherever those come from. Raises ValueError when a name is no text."""
        whole = {name: self.node[name] for name in _INTERVALS}
        for name, value in values.items():
            if type(name) is not str:
                raise ValueError
            whole[name] = value
        return whole

    # --- private ---

    def _as_provisioned(self):
        return [self.node["version"], self.whole({}), None, None, None]

    def _kept(self):
        """The record; None when there is none that this firmware reads, or it is about another link or other probes."""
        try:
            record = cbor.decode(blob("cfg", _DESIRED))
            is_own = len(record) == _FIELDS and record[-1] == self._provisioned
        except (NotProvisioned, ValueError, TypeError):
            return None
        return record[:-1] if is_own else None

    def _take(self, record):
        self.version, self.values, self.failures, self.before, self.rolled_back = record
        self.link = dict(self._provisioned_link)
        self.link.update(link_of(self.values))
        if "renew" in self.values:
            # Not the way to the broker: a talk proves nothing about it, so it is not on trial as the link is.
            self.link["renew"] = self.values["renew"]


def blob(namespace, key, most_bytes=_MAX_BLOB):
    """A blob of NVS. Raises NotProvisioned when it is not there, or is longer than that."""
    buffer = bytearray(most_bytes)
    try:
        length = esp32.NVS(namespace).get_blob(key, buffer)
    except OSError:
        raise NotProvisioned(namespace + "." + key)
    return bytes(buffer[:length])


def running_bundle():
    """What the running slot's VERSION file says: version, counter (0: no release), sha256, built_utc_s; if an update brought it,
    assignment and attempt.
    """
    import json

    import slots

    with open("/" + slots.select().slot + "/VERSION") as file:
        return json.load(file)


def is_kept(namespace, key):
    """True when NVS holds such a blob."""
    try:
        esp32.NVS(namespace).get_blob(key, bytearray(1))
    except OSError as error:
        return error.errno != _NOT_FOUND
    return True


def digest(version, values):
    """SHA-256 of a configuration, by which the server knows it."""
    values = dict(values)
    if "wifi" in values:
        # What goes over the wire in every state message must not help anybody to guess a password.
        values["wifi"] = [network[0] for network in values["wifi"]]
    return hashlib.sha256(cbor.encode({"version": version, "values": values})).digest()


def link_of(values):
    """What of these values is the link's."""
    return {name: values[name] for name in _LINK if name in values}
