"""One talk with the server: hear what is desired and received, say what the spool holds, hear the receipt. The way there: link/dial.py.

Only a receipt moves the mark: a PUBACK says that the broker has a pack,
not that anybody stored it (MQTT 3.1.1 acknowledges even what it throws away).
"""

from micropython import const

from node import cbor, heap, plan, report, senml
from node.errors import LinkError, TimedOut
from node.link import mqtt

_SESSION_MS = const(
    12_000
)  # TLS, CONNACK, SUBACK: a slow link takes some seconds for the handshake alone
_HEAR_MS = const(2_000)
_LINGER_MS = const(2_000)
_RESERVE_MS = const(5_000)  # what the last PUBACKs and the receipt may need of the radio's time
_STATE_BYTES = const(1_200)  # its CBOR
_DISCONNECT_MS = const(200)
_RENEWED_BYTES = const(1_800)


class Exchange:
    """`wake`: the running wake (cycle.Wake); `way`: what led to the broker (link/dial.py); `deadline`: when the radio goes off."""

    def __init__(self, wake, way, deadline):
        self._wake = wake
        self._way = way
        self._deadline = deadline
        prefix = wake.config.link.get("prefix")
        self._prefix = prefix + "/" if prefix else ""
        self._desired = None
        self._orders = []  # type: list[object]
        self._has_receipt = False
        self._received = 0
        self._last_receipt = 0
        self._resent = None  # highest sequence sent again; None while nothing was to be
        self._client = None

    def run(self):
        """Raises OSError, ValueError or LinkError when the node could not say all it had to; what was heard is kept."""
        try:
            client = self._connect()
            # What is told leaves crumbs all over the memory; the state message needs one piece of it.
            room = bytearray(_STATE_BYTES)
            self._listen(client)
            self._mark()
            self._obey()
            self._publish_state(client, room)
            del room
            self._publish_packs(client)
            self._linger(client)
            self._judge_trial()
        finally:
            self._close()
            self._mark()
            self._note_resent()

    def _connect(self):
        wake, deadline = self._wake, self._deadline
        stream, raw, address, memory = self._way
        self._client = client = mqtt.Client(stream, raw, self._hear)
        session = deadline.within(_SESSION_MS)
        client.connect(wake.config.node_id, session)
        client.subscribe((self._topic("dn", "des"), self._topic("dn", "rcpt")), session)
        wake.state.broker_address, wake.state.bearer = address, memory
        wake.reached("broker")
        heap.note()
        if wake.is_credential_tried:
            from node import renewal

            renewal.confirm(wake)
            plan.forget_done()
        return client

    def _listen(self, client):
        """Give the retained messages a moment; go on as soon as both are there."""
        self._wait(client, lambda: self._desired is not None and self._has_receipt, _HEAR_MS)
        self._apply()

    def _publish_state(self, client, room):
        state = cbor.encode_map_into(room, report.state(self._wake))
        client.publish(self._topic("up", "st"), (state,), self._deadline)

    def _publish_packs(self, client):
        """The newest first, so that the city sees now; then the backlog, oldest first, while the time lasts.

        What the server asked for again comes last: it had it once.
        """
        spool, state = self._wake.spool, self._wake.state
        if spool is None or not (spool.depth or spool.again):
            return
        if spool.depth:
            spool.give_up_unreadable()
        newest = spool.newest
        state.sent_high = max(state.sent_high or 0, newest)
        first = max(spool.receipt + 1, spool.oldest)
        if newest >= first:
            self._publish_range(client, newest, newest)
        self._publish_range(client, first, newest - 1)
        if spool.again:
            self._send_again(client, first - 1)
        client.settle(self._deadline)
        heap.note()

    def _publish_range(self, client, first, last):
        for pack in self._wake.spool.packs(first, last):
            if self._deadline.left_ms() < _RESERVE_MS:
                return
            self._publish(client, pack)

    def _send_again(self, client, limit):
        """Go on with what was asked for again; what is above `limit` was sent just now."""
        spool = self._wake.spool
        _, last, following, _ = spool.again
        self._resent = following - 1
        for pack in spool.packs(following, min(last, limit)):
            if self._deadline.left_ms() < _RESERVE_MS:
                return
            self._publish(client, pack)
            self._resent = pack[0]
        self._resent = last

    def _publish(self, client, pack):
        _, power_up, uptime_ms, n_records, body = pack
        wake = self._wake
        utc_s = wake.clock.utc_s(uptime_ms) if power_up == wake.state.power_up else None
        head = senml.head(wake.config.node_id, utc_s, wake.spool.oldest, n_records)
        client.publish(self._topic("up", senml.kind(body)), (head, body), self._deadline)

    def _linger(self, client):
        """Wait a moment for the receipt; leave as soon as it covers the newest pack and what was sent again."""
        spool = self._wake.spool
        wanted = self._resent or 0
        if spool is not None and spool.depth:
            wanted = spool.newest
        self._wait(client, lambda: self._last_receipt >= wanted, _LINGER_MS)
        client.settle(self._deadline)
        self._apply()
        self._obey()

    def _wait(self, client, is_done, timeout_ms):
        deadline = self._deadline.within(timeout_ms)
        try:
            while not is_done():
                client.wait(deadline)
        except TimedOut:
            pass

    def _topic(self, direction, kind):
        return self._prefix + direction + "/" + self._wake.config.node_id + "/" + kind

    # --- what is heard ---

    def _hear(self, topic, payload):
        if topic.endswith(b"/rcpt"):
            self._has_receipt = True
            seq = self._sequence_in(payload)
            if seq is not None:
                self._last_receipt = seq
                self._received = max(self._received, seq)
        elif topic.endswith(b"/des"):
            self._desired = payload

    def _apply(self):
        """Take the configuration of the desired state last heard, and note its commands."""
        if not self._desired:
            return
        wake = self._wake
        try:
            # Read twice, so that neither part has to share the memory with the other.
            fault = wake.config.apply(self._part("config"), wake.battery_mv)
            plan.forget_done()
            fault = self._keep_renewed() or fault
            self._keep_orders()
        except (ValueError, KeyError, TypeError, AttributeError):
            fault = "des malformed"
        self._desired = b""
        if fault:
            wake.state.last_error = fault

    def _keep_orders(self):
        """What is to be done, and which release is to run."""
        parts = cbor.decode(self._desired, True)
        self._orders = parts["commands"] or []
        self._wake.release = parts["release"]

    def _keep_renewed(self):
        """Certificate and authorities that the fleet has renewed, until the talk is over; what is wrong with them."""
        parts = cbor.decode(self._desired, True)
        certificate, roots = parts.get("certificate"), parts.get("roots")
        if certificate is None and roots is None:
            return None
        if len(certificate or b"") + sum([len(root) for root in roots or ()]) > _RENEWED_BYTES:
            return "des certificate"
        self._wake.renewed = (
            certificate and bytes(certificate),
            roots and [bytes(root) for root in roots],
        )
        return None

    def _part(self, name):
        """One field of the desired state. The largest is 4 KiB: a copy of that would be too much."""
        return cbor.decode(self._desired, True)[name]

    def _obey(self):
        """Begin what is commanded; what goes wrong with it costs the talk nothing."""
        orders, self._orders = self._orders, []
        if orders and self._wake.spool is not None:
            try:
                from node import commands

                commands.take(self._wake, orders)
            except Exception as error:
                from node import crash

                self._wake.state.last_error = crash.describe(error)
            plan.forget_done()

    def _judge_trial(self):
        """A configuration on trial has to lead to the server; a broker that lets the node in is not enough."""
        wake = self._wake
        if wake.config.needs_proof and wake.spool is not None:
            if self._last_receipt < wake.spool.newest:
                raise LinkError("no receipt")

    def _sequence_in(self, receipt):
        """The receipted sequence, or None when the receipt cannot be true: judged by what had been sent when it came."""
        wake = self._wake
        try:
            receipt = cbor.decode(receipt)
            spool, seq = receipt["spool"], receipt["seq"]
        except (ValueError, KeyError, TypeError):
            return None
        if wake.spool is None or spool != wake.spool.id or type(seq) is not int:
            return None
        return seq if 0 <= seq <= (wake.state.sent_high or 0) else None

    def _mark(self):
        if self._received:
            self._wake.spool.mark(self._received)

    def _note_resent(self):
        """By the last receipt, not by the mark: a server that fell back has less than it once said."""
        if self._resent is not None:
            self._wake.spool.note_resent(self._resent, self._last_receipt)

    def _close(self):
        if self._client is not None:
            try:
                self._client.disconnect(self._deadline.within(_DISCONNECT_MS))
            except (OSError, ValueError, TimedOut):
                pass
        self._way[1].close()
