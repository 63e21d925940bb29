"""The way to the broker: onto the network, what time it is, TCP, TLS. Its memory is given back before the node says a word."""

from micropython import const

from node import identity
from node.config import running_bundle
from node.errors import LinkError
from node.link import bearer, sntp, tls

_BEARER_MS = const(14_000)
_RENEW_MS = const(5_000)
_TIME_MS = const(3_000)
_TCP_MS = const(5_000)


def reach(wake, deadline):
    """(stream, raw socket below it, address, what the bearer remembers should the broker let the node in).

    Raises OSError, ValueError or LinkError; then nothing is left open.
    """
    link, state = wake.config.link, wake.state
    carrier = bearer.switch_on(link, state.bearer, wake.clock.uptime_ms())
    try:
        carrier.connect(deadline.within(_BEARER_MS))
    finally:
        state.bearer = carrier.memory(False)
    wake.reached("wifi")
    built_utc_s = running_bundle()["built_utc_s"]
    has_time = _learn_time(wake, built_utc_s, deadline)
    known, state.broker_address = state.broker_address, None
    raw = _open_known(known, deadline)
    if raw is None:
        # When nobody answers there, the node's own address may belong to another by now.
        is_other = known is not None and carrier.renew(deadline.within(_RENEW_MS))
        if is_other and wake.clock.utc_ms(0) is None:
            has_time = _learn_time(wake, built_utc_s, deadline)
        known = tls.resolve(link["host"], link["port"])
        raw = tls.connect(tuple(known), deadline.within(_TCP_MS))
    if not has_time:
        state.last_error = "no time"
    memory = carrier.memory(True)
    bearer.keep_on()
    return _secure(wake, raw, built_utc_s), raw, list(known), memory


def _learn_time(wake, built_utc_s, deadline):
    """True when a server told it."""
    server = wake.config.link["ntp"]
    if not server:
        return False
    answer = sntp.ask(server, wake.clock, deadline.within(_TIME_MS))
    return answer is not None and wake.clock.learn(*answer, built_utc_s)


def _open_known(address, deadline):
    """A connection to where the broker was last time, which spares looking it up, and that can block for seconds; else None.

    The address is remembered again only when the broker has let the node in: whoever else answers there, or whatever a name server
    says once, costs one talk.
    """
    if address is None:
        return None
    try:
        return tls.connect(tuple(address), deadline.within(_TCP_MS))
    except (OSError, LinkError):
        return None


def _secure(wake, raw, built_utc_s):
    link = wake.config.link
    wake.is_connected = True
    if not link["tls"]:
        return raw
    try:
        wake.clock.show_to_tls(built_utc_s)
        own = identity.load()
        wake.credentials = identity.told(*own)
        return tls.secure(raw, link["server_name"], own[1], own[2])
    except Exception:
        raw.close()
        raise
