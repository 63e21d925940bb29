"""How another configuration comes to hold, and how the one before comes back. Loaded only when there is one.

It is on trial until the server was heard under it. When a changed link leads nowhere, or wakes fail, the one before holds again by
itself, and the state message says why (decision 0044).
"""

from micropython import const

from node import cbor
from node.config import digest, link_of

# Of a link's faults one may be bad luck, two a storm; after three the way back is the better try.
_WAKES = const(3)
_MAX_REASON = const(40)
_ID_BYTES = const(8)


def begin(config, version, values):
    """Try a configuration that the node can take; None, or what is wrong with it.

    What was rolled back is not tried again: that takes a new version.
    """
    if type(version) is not int or not 0 <= version < 1 << 31:
        return "des version"
    if config.rolled_back is not None and config.rolled_back[:2] == _identity(version, values):
        return None
    before = config.before if config.is_on_trial else [config.version, config.values]
    config.keep([version, values, 0, before, None])
    config.is_fresh = True
    return None


def note_talk(config, state, is_good):
    """Confirm what is on trial after a good talk; count a bad one against it when it is the link that is on trial.

    An outage is no failure of a configuration that leaves the link alone.
    """
    if config.is_fresh:
        # Whoever changes the link, or how often the node talks, wants to know soon.
        _talk_soon(state, forgets_link=_is_link_new(config))
    elif is_good:
        config.keep([config.version, config.values, None, None, None])
        _talk_soon(state, forgets_link=False)
    elif _is_link_new(config):
        note_failure(config, state, state.last_error)


def note_failure(config, state, reason):
    """A wake under the configuration on trial failed; after the third the one before holds again."""
    failures = config.failures + 1
    if failures < _WAKES:
        config.keep([config.version, config.values, failures, config.before, None])
        _talk_soon(state, forgets_link=False)
        return
    version, values = config.before
    rolled_back = _identity(config.version, config.values)
    rolled_back.append((reason or "unknown")[:_MAX_REASON])
    _talk_soon(state, forgets_link=_is_link_new(config))
    config.keep([version, values, None, None, rolled_back])


def _is_link_new(config):
    return cbor.encode(link_of(config.values)) != cbor.encode(link_of(config.before[1]))


def _identity(version, values):
    return [version, digest(version, values)[:_ID_BYTES]]


def _talk_soon(state, forgets_link):
    """In the next wake; what was remembered of a link that changes would lead to the old one."""
    state.published_ms = None
    state.radio_failures = 0
    state.radio_not_before_ms = 0
    if forgets_link:
        state.bearer = state.broker_address = None
