"""What the node is told: its identity, its link, its probes (NVS), and the values that the server desires.

What is desired holds over what was provisioned. It is kept as one record, written in one operation: whenever the power goes, the
whole old or the whole new configuration holds. A new one is on trial until the server was heard under it; when it leads nowhere,
or its wakes fail, the one before comes back by itself, and the state message says why.

`des` in NVS: [version, values, failed wakes of the trial or None, [version, values] before the trial or None, [version, first bytes
of the hash, reason] of what was rolled back last or None]
"""

import binascii
import hashlib

import esp32
from micropython import const

from node import cbor
from node.errors import NotProvisioned

_MAX_BLOB = const(1900)
_DESIRED = "des"
_FIELDS = const(5)
# Desired or not, these two are always part of what the hash covers.
_INTERVALS = ("sample_s", "publish_s")
_LINK = ("host", "port", "server_name", "wifi")
# Of the link's own faults one may be bad luck, two a storm; after three the way back is the better try.
_TRIAL_WAKES = const(3)
_MAX_REASON = const(40)
_ID_BYTES = const(8)


class Config:
    """`node_id` and `node` as provisioned; `link`, `version` and `values` as they hold now."""

    def __init__(self):
        self.node_id = str(blob("id", "node_id"), "utf-8")
        self._provisioned_link = cbor.decode(blob("cfg", "link"))
        self.node = cbor.decode(blob("cfg", "node"))
        # A configuration that came in this very wake: the talk it came by says nothing about it.
        self._is_fresh = False
        self._fault = None
        self._take(self._kept() or self._as_provisioned())

    @property
    def sample_s(self):
        return self.values["sample_s"]

    @property
    def publish_s(self):
        return self.values["publish_s"]

    def desired(self, name, default=None):
        """A value as desired, else as provisioned, else the default."""
        return self.values.get(name, self.node.get(name, default))

    @property
    def every_s(self):
        """{first channel key of a probe: seconds between its readings}, of those that are not read at every instant."""
        return self.desired("every_s", {})

    @property
    def limits(self):
        """[[channel key, kind, value, clear], …] as node/limits.py has them."""
        return self.desired("limits", ())

    @property
    def urgent_s(self):
        """How often the node samples and publishes while a limit is crossed; never less often than it samples anyway."""
        return min(self.desired("urgent_s", self.sample_s), self.sample_s)

    @property
    def thresholds_mv(self):
        """Battery voltages below which the node publishes rarely, leaves its radio off, stops; None where it never does."""
        return [self.desired(name) for name in ("low_mv", "mute_mv", "stop_mv")]

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
        return self._failures is not None

    @property
    def needs_proof(self):
        """True in a talk that has to show that the configuration on trial leads to the server."""
        return self.is_on_trial and not self._is_fresh

    @property
    def state(self):
        """(word, reason) for the state message: whether what was desired last is what holds."""
        if self._fault is not None:
            return "refused", self._fault
        if self.is_on_trial:
            return "trial", None
        if self._rolled_back is not None:
            return "rolled_back", self._rolled_back[2]
        return "confirmed", None

    def sha256(self):
        """Hex hash over the deterministic CBOR of {"version", "values"}; of Wi-Fi networks the names only."""
        return str(binascii.hexlify(digest(self.version, self.values)), "ascii")

    def apply(self, wanted, battery_mv):
        """Take a desired configuration, {"version", "values"}; None, or what is wrong with it.

        What was rolled back is not tried again: that takes a new version.
        """
        self._fault = None
        try:
            version, values = wanted["version"], self._whole(wanted["values"])
            is_known = cbor.encode([version, values]) == cbor.encode([self.version, self.values])
            is_known = is_known or self._was_rolled_back(version, values)
        except (ValueError, LookupError, TypeError, AttributeError):
            return "des malformed"
        if type(version) is not int or not 0 <= version < 1 << 31:
            return "des version"
        if is_known:
            return None
        from node import schema

        fault = schema.fault(values, self.node, battery_mv)
        if fault is not None:
            self._fault = fault[:_MAX_REASON]
            return "des " + self._fault
        before = self._before if self.is_on_trial else [self.version, self.values]
        self._keep([version, values, 0, before, None])
        self._is_fresh = True
        return None

    def note_talk(self, state, is_good):
        """Confirm what is on trial after a good talk; count a bad one against it when it is the link that is on trial.

        An outage is no failure of a configuration that leaves the link alone.
        """
        if not self.is_on_trial:
            return
        if self._is_fresh:
            # Whoever changes the link, or how often the node talks, wants to know soon.
            _talk_soon(state, forgets_link=self._is_link_new())
        elif is_good:
            self._keep([self.version, self.values, None, None, None])
            _talk_soon(state, forgets_link=False)
        elif self._is_link_new():
            self.note_failure(state, state.last_error)

    def note_failure(self, state, reason):
        """A wake under the configuration on trial failed; after the third the one before holds again."""
        if not self.is_on_trial or self._is_fresh:
            return
        failures = self._failures + 1
        if failures < _TRIAL_WAKES:
            self._keep([self.version, self.values, failures, self._before, None])
            _talk_soon(state, forgets_link=False)
            return
        version, values = self._before
        rolled_back = [
            self.version,
            digest(self.version, self.values)[:_ID_BYTES],
            (reason or "unknown")[:_MAX_REASON],
        ]
        _talk_soon(state, forgets_link=self._is_link_new())
        self._keep([version, values, None, None, rolled_back])

    def forget(self):
        """Be as provisioned again."""
        try:
            nvs = esp32.NVS("cfg")
            nvs.erase_key(_DESIRED)
            nvs.commit()
        except OSError:
            pass  # nothing was kept
        self._take(self._as_provisioned())

    # --- private ---

    def _as_provisioned(self):
        return [self.node["version"], self._whole({}), None, None, None]

    def _whole(self, values):
        """The values with both intervals, wherever those come from."""
        whole = {name: self.node[name] for name in _INTERVALS}
        for name, value in values.items():
            if type(name) is not str:
                raise ValueError
            whole[name] = value
        return whole

    def _kept(self):
        """The record; None when there is none that this firmware reads."""
        try:
            record = cbor.decode(blob("cfg", _DESIRED))
            is_whole = len(record) == _FIELDS and set(_INTERVALS) <= set(record[1])
        except (NotProvisioned, ValueError, TypeError):
            return None
        return record if is_whole else None

    def _keep(self, record):
        nvs = esp32.NVS("cfg")
        nvs.set_blob(_DESIRED, cbor.encode(record))
        nvs.commit()
        self._take(record)

    def _take(self, record):
        self.version, self.values, self._failures, self._before, self._rolled_back = record
        self.link = dict(self._provisioned_link)
        self.link.update(_link_of(self.values))

    def _is_link_new(self):
        return cbor.encode(_link_of(self.values)) != cbor.encode(_link_of(self._before[1]))

    def _was_rolled_back(self, version, values):
        if self._rolled_back is None:
            return False
        return self._rolled_back[:2] == [version, digest(version, values)[:_ID_BYTES]]


def blob(namespace, key):
    """A blob of NVS. Raises NotProvisioned when it is not there."""
    buffer = bytearray(_MAX_BLOB)
    try:
        length = esp32.NVS(namespace).get_blob(key, buffer)
    except OSError:
        raise NotProvisioned(namespace + "." + key)
    return bytes(buffer[:length])


def digest(version, values):
    """SHA-256 of a configuration, by which the server knows it."""
    values = dict(values)
    if "wifi" in values:
        # What goes over the wire in every state message must not help anybody to guess a password.
        values["wifi"] = [network[0] for network in values["wifi"]]
    return hashlib.sha256(cbor.encode({"version": version, "values": values})).digest()


def _link_of(values):
    return {name: values[name] for name in _LINK if name in values}


def _talk_soon(state, forgets_link):
    """In the next wake; what was remembered of a link that changes would lead to the old one."""
    state.published_ms = None
    state.radio_failures = 0
    state.radio_not_before_ms = 0
    if forgets_link:
        state.bearer = state.broker_address = None
