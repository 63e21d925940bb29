"""A wake that only updates: onto the network, what is signed, what is missing, and into the other slot. Nothing is sampled or published.

What is refused ends the job; what the network keeps from happening is tried again after the next talk. A loss of power anywhere leaves the
running version as it is, and what has come so far.
"""

import gc
import sys

from micropython import const

from node import config, rtc_memory
from node.clock import Clock
from node.deadline import Deadline
from node.errors import LinkError
from node.update import Refused, job
from node.update.download import Fetcher

_RADIO_MS = const(30_000)
_JOIN_MS = const(14_000)
_SOON_MS = const(1_000)
_NO_SPACE = const(28)
# So many sessions without a byte gained: what is slower than that is no download.
_MOST_FAULTS = const(24)
_TUF_FOLDER = "/tuf"
# What one part of a session leaves behind and the next has no room for.
_VERIFYING = ("tuf", "metadata", "keys", "rsa", "p256", "ed25519", "sha512")


def run():
    """Does not return."""
    state = rtc_memory.load()
    state.boot_count += 1
    # Whatever becomes of this wake, the next one is a usual one.
    state.update = rtc_memory.UPDATE_UNTOLD
    state.step = "update"
    rtc_memory.store(state)
    session = _Session(state)
    is_installed = False
    try:
        is_installed = session.work()
    finally:
        session.close()
    from node import plan, power

    plan.talk_soon(state)  # what happened here is to be told
    clock, wait_ms = session.clock, _SOON_MS
    if not is_installed:
        wait_ms = plan.sleep_ms(clock.schedule_ms(clock.uptime_ms()), state, session.config)
    power.sleep(state, clock.asleep_ms(wait_ms))


class _Session:
    def __init__(self, state):
        self._state = state
        self.clock = Clock(state)
        self.config = config.Config()
        self._model = self.config.node["model"]
        self.config.node = {}  # it is the largest thing in memory, and no probe is read here
        self._job = job.load()
        self._deadline = Deadline(_RADIO_MS)
        self._fetcher = Fetcher(self.config.link, self.clock, self._deadline)

    def close(self):
        self._fetcher.close()

    def work(self):
        """True when the other slot runs from the next reset on."""
        known = self._job
        if known is None or not known.is_on_the_way:
            return False
        try:
            self._join()
            self._advance(known)
            return True
        except Refused as error:
            self._end(job.REJECTED, str(error))
        except (OSError, LinkError) as error:
            if isinstance(error, OSError) and error.errno == _NO_SPACE:
                self._end(job.FAILED, known.stage + ": no room")
            else:
                self._count_fault(error)
        return False

    def _join(self):
        from node.link import bearer

        carrier = bearer.switch_on(self.config.link, self._state.bearer, self.clock.uptime_ms())
        is_joined = False
        try:
            carrier.connect(self._deadline.within(_JOIN_MS))
            is_joined = True
        finally:
            self._state.bearer = carrier.memory(is_joined)
        bearer.keep_on()
        del carrier
        _forget("node.link", "wifi")
        self._fetcher.open()
        _forget("node.link", "tls")
        _forget("node", "identity")

    def _advance(self, known):
        length, sha256 = self._signed()
        _forget("node.update", *_VERIFYING)
        from node.update import bundle

        bundle.install(known, self._model, length, sha256, self._fetcher, self._state)
        del bundle
        known.enter(job.REBOOTING)
        # The last step: if the power goes before it, the version that runs now does all this again, and most of it is there.
        _forget("node.update", "bundle", "image", "install", "spare", "packed", "manifest")
        import judge

        judge.begin_trial(self._now_s())

    def _signed(self):
        """(length, SHA-256 in hex) of the manifest, by the metadata."""
        from node.update import news

        news.fetch(self._fetcher, self._job.target)
        del news
        _forget("node.update", "news", "spare", "packed")  # not `metadata`, which comes next anyway
        from node.update import tuf

        def fetch(name, limit):
            return self._fetcher.metadata(name, limit, _TUF_FOLDER + "/new")

        client = tuf.Client(_TUF_FOLDER, fetch, self._now_s())
        client.refresh()
        found = client.target(self._job.target)
        if found is None:
            raise Refused("not signed")
        length, sha256, custom = found
        if sha256 is None:  # only a SHA-512, which what comes here is not hashed with
            raise Refused("targets hash")
        if custom.get("model") != self._model:
            raise Refused("wrong model")
        if custom.get("counter") != self._job.counter:
            raise Refused("counter differs")
        return length, sha256

    def _now_s(self):
        now_s = self.clock.utc_s(self.clock.uptime_ms())
        if now_s is None:
            raise LinkError("no time")
        return now_s

    def _count_fault(self, error):
        known = self._job
        known.faults = 0 if self._fetcher.gained else known.faults + 1
        if known.faults >= _MOST_FAULTS:
            self._end(job.FAILED, known.stage + ": too slow")
            return
        known.keep()
        self._state.last_error = "update: " + str(error)

    def _end(self, stage, reason):
        from node.update import install

        install.forget()
        self._job.enter(stage, reason)


def _forget(package, *modules):
    for module in modules:
        if sys.modules.pop(package + "." + module, None):
            delattr(sys.modules[package], module)
    gc.collect()
