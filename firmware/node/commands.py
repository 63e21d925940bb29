"""Commands: each is carried out at most once, and answered by an event. Loaded only while the desired state holds one.

A command's id is on flash before it is begun, and remembered until fifteen others came. What was begun and not answered (the power
went, the wake crashed) is answered `interrupted`: it may have happened or not, and is not tried again. An answer may come twice,
when the power goes between the spool and the note of it; the first that is not `interrupted` counts.

`rec` in NVS "cmd": [ids, [[id, name, True when it was done], …] of those that are begun and not answered yet]
"""

import esp32
import machine
from micropython import const

from node import cbor, config, crash, heap, plan, power, rtc_memory, senml
from node.deadline import Deadline
from node.errors import NotProvisioned
from node.link import bearer
from node.telling import tell

DONE = const("done")
FAILED = const("failed")
REFUSED = const("refused")
UNSUPPORTED = const("unsupported")
EXPIRED = const("expired")
INTERRUPTED = const("interrupted")

# The first two are carried out while the node talks, the others after it, in this order.
NAMES = ("resend", "dump_log", "identify", "read_now", "self_test", "factory_reset", "reboot")
RESULTS = (DONE, FAILED, REFUSED, UNSUPPORTED, EXPIRED, INTERRUPTED)

_REMEMBERED = const(16)
_RECORD = "rec"
_MEASURING_MS = const(75_000)
_BLINKS = const(20)
_BLINK_MS = const(250)
_SOON_MS = const(1_000)
_MAX_WHY = const(60)
_MAX_SEQUENCE = const(0xFFFFFFFF)


def take(wake, orders):
    """Answer what was begun in an earlier wake, then begin what is new; what has to wait for the end of the talk goes to `wake.orders`."""
    record = _Record()
    for order, name, is_done in list(record.begun):
        if not _is_waiting(wake, order):
            _answer(wake, order, name, DONE if is_done else INTERRUPTED)
            record.close(order)
    for order in orders:
        try:
            order = order["id"], order["name"], order.get("args") or {}, order["expires"]
        except (KeyError, TypeError, AttributeError):
            continue  # without an id there is nothing to answer
        if type(order[0]) is int and type(order[3]) is int and order[0] not in record.ids:
            _begin(wake, record, *order)


def carry_out(wake):
    """What had to wait for the end of the talk; then the next wake comes at once and tells. Does not return."""
    record = _Record()
    bearer.off()  # some probes cannot be read beside a radio
    state, names = wake.state, [name for _, name in wake.orders]
    for order, name in sorted(wake.orders, key=lambda one: NAMES.index(one[1])):
        if name == "reboot":
            record.note_done(order)  # answered when it is true
            continue
        try:
            result, details = _AFTER[name](wake)
        except Exception as error:
            result, details = FAILED, (("why", crash.describe(error)[:_MAX_WHY]),)
        _answer(wake, order, name, result, details)
        record.close(order)
    state.published_ms = None
    state.radio_failures = state.radio_not_before_ms = 0
    state.spool = wake.spool.saved()
    if "factory_reset" in names:
        state = rtc_memory.State()
    if "factory_reset" in names or "reboot" in names:
        rtc_memory.store(state)
        machine.reset()
    power.sleep(state, _SOON_MS)


def _begin(wake, record, order, name, arguments, expires_utc_s):
    now_s = wake.clock.utc_s(wake.clock.uptime_ms())
    if now_s is None:
        return  # whether it has expired cannot be said yet
    record.begin(order, name)
    result, details = _judge(wake, name, arguments, expires_utc_s - now_s)
    if result is None:
        wake.orders.append((order, name))
        return
    _answer(wake, order, name, result, details)
    record.close(order)


def _judge(wake, name, arguments, left_s):
    """(result, details) of what can be answered at once; (None, ()) for what has to wait for the end of the talk."""
    if left_s <= 0:
        return EXPIRED, ()
    if name not in NAMES or (name == "identify" and wake.config.node.get("led") is None):
        return UNSUPPORTED, ()
    if name == "factory_reset" and arguments.get("confirm") != wake.config.node_id:
        return REFUSED, (("why", "confirm"),)
    if name == "resend":
        return _resend(wake, arguments.get("from"), arguments.get("to"))
    if name == "dump_log":
        return DONE, _log(wake)
    return None, ()


def _resend(wake, first, last):
    for number in (first, last):
        if type(number) is not int or not 0 <= number <= _MAX_SEQUENCE:
            return REFUSED, (("why", "from, to"),)
    held = wake.spool.resend(first, last)
    if held is None:
        return FAILED, (("why", "none of it is held"),)
    return DONE, (("from", held[0]), ("to", held[1]))


def _log(wake):
    """What the node remembers of its own troubles."""
    state, spool = wake.state, wake.spool
    word, reason = wake.config.state
    return (
        ("boots", state.boot_count),
        ("error", (state.last_error or "")[:_MAX_WHY]),
        ("radio_failures", state.radio_failures),
        ("config", word + (": " + reason if reason else "")),
        ("thinned", spool.thinned),
        ("lost", spool.lost),
        ("held", spool.newest - spool.oldest + 1),
        ("heap_low", heap.low()),
    )


def _identify(wake):
    led = machine.Pin(wake.config.node["led"], machine.Pin.OUT, value=0)
    deadline = Deadline(2 * _BLINKS * _BLINK_MS + _SOON_MS)
    for _ in range(_BLINKS):
        led.value(1)
        deadline.sleep(_BLINK_MS)
        led.value(0)
        deadline.sleep(_BLINK_MS)
    return DONE, ()


def _read_now(wake):
    uptime_ms = wake.clock.uptime_ms()
    return DONE, (("seq", _keep(wake, uptime_ms, _measure(wake))),)


def _self_test(wake):
    """Every probe once more: which channels gave a value, and which did not and why."""
    readings = _measure(wake)
    failed = [key + " " + value for key, value in readings if isinstance(value, str)]
    details = [("channels", len(readings)), ("heap_low", heap.note())]
    if failed:
        return FAILED, [("why", ", ".join(failed)[:_MAX_WHY])] + details
    return DONE, details


def _factory_reset(wake):
    """As provisioned again: what was desired and remembered is forgotten. What was measured stays until the server has it."""
    wake.config.forget()
    return DONE, ()


_AFTER = {
    "identify": _identify,
    "read_now": _read_now,
    "self_test": _self_test,
    "factory_reset": _factory_reset,
}


def _measure(wake):
    """Every probe of the node, due or not; the battery as this wake has read it."""
    node = wake.config.node
    readings = plan.measure(node["probes"], Deadline(_MEASURING_MS))
    if node.get("bat") and wake.battery_mv is not None:
        readings.append((node["bat"]["key"], wake.battery_mv))
    return readings


def _is_waiting(wake, order):
    return any([waiting == order for waiting, _ in wake.orders])


def _answer(wake, order, name, result, details=()):
    tell(wake, "answer", [("id", order), ("name", name), ("result", result)] + list(details))


def _keep(wake, uptime_ms, readings):
    """A pack of its own; its sequence."""
    spool, power_up = wake.spool, wake.state.power_up
    n_records, body = senml.body(spool.id, spool.next_seq, power_up, uptime_ms, readings)
    return spool.append(power_up, uptime_ms, n_records, body)


class _Record:
    """What is on flash of commands: `ids` of the last ones, `begun` without an answer."""

    def __init__(self):
        self.ids, self.begun = [], []
        try:
            self.ids, self.begun = cbor.decode(config.blob("cmd", _RECORD))
        except (NotProvisioned, ValueError, TypeError):
            pass  # there never was a command

    def begin(self, order, name):
        self.ids = self.ids[1 - _REMEMBERED :] + [order]
        self.begun.append([order, name, False])
        self._write()

    def note_done(self, order):
        for entry in self.begun:
            if entry[0] == order:
                entry[2] = True
        self._write()

    def close(self, order):
        self.begun = [entry for entry in self.begun if entry[0] != order]
        self._write()

    def _write(self):
        nvs = esp32.NVS("cmd")
        nvs.set_blob(_RECORD, cbor.encode([self.ids, self.begun]))
        nvs.commit()
