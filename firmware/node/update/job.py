"""The update that the node has been given: what it is, how far it has come, and what of that is still to be told.

NVS `upd`.`job`: [assignment, attempt, target, counter, stage, reason, faults, [[stage, reason], …] not told yet] (CBOR). A new assignment
takes the old one's place. What happens is noted at once, whenever it happens; it becomes events of the next wake that has a spool.
"""

import esp32
from micropython import const

from node import cbor, config
from node.errors import NotProvisioned

# In the order in which they follow each other; whoever reads them on the server has the same names (wire/states.py).
ACCEPTED = const("accepted")
DOWNLOADING = const("downloading")
VERIFIED = const("verified")
INSTALLING = const("installing")
REBOOTING = const("rebooting")
TESTING = const("testing")
# Ends. `confirmed` is not told: the state message shows it.
CONFIRMED = const("confirmed")
ALREADY_INSTALLED = const("already_installed")
REJECTED = const("rejected")
FAILED = const("failed")
ROLLED_BACK = const("rolled_back")
CANCELED = const("canceled")

STAGES = (ACCEPTED, DOWNLOADING, VERIFIED, INSTALLING, REBOOTING, TESTING) + (
    ALREADY_INSTALLED,
    REJECTED,
    FAILED,
    ROLLED_BACK,
    CANCELED,
)

# A whole MicroPython is on trial (image.py), told as `rebooting` and `testing`: before its first wake, and from it on.
IMAGE_STARTED = const("image_started")
IMAGE_TESTED = const("image_tested")

_ON_THE_WAY = (ACCEPTED, DOWNLOADING, VERIFIED, INSTALLING, REBOOTING)
_FIELDS = const(8)
_MOST_BYTES = const(900)
_MAX_REASON = const(40)
_MAX_TARGET = const(96)
_MOST_UNTOLD = const(12)


class Job:
    """`faults`: tries in a row that ended without a byte gained. `untold`: [stage, reason] of what happened since the last telling."""

    def __init__(self, assignment, attempt, target, counter):
        self.assignment = assignment
        self.attempt = attempt
        self.target = target
        self.counter = counter
        self.stage = self.reason = ""
        self.faults = 0
        self.untold = []  # type: list[list[str]]

    @property
    def is_on_the_way(self):
        """True until the new version has had its first wake, while nothing ended it."""
        return self.stage in _ON_THE_WAY

    @property
    def is_image(self):
        """True while a whole MicroPython of it is on trial."""
        return self.stage in (IMAGE_STARTED, IMAGE_TESTED)

    def target_file(self, sha256):
        """The target's name as consistent snapshots have it."""
        folder, _, name = self.target.rpartition("/")
        return folder + "/" + sha256 + "." + name

    def is_for(self, wanted):
        return (self.assignment, self.attempt) == (wanted["assignment"], wanted["attempt"])

    def enter(self, stage, reason="", told=""):
        """Be at another stage, or stand still for another reason. `told`: what it is called to the server, where that differs."""
        reason = reason[:_MAX_REASON]
        if (stage, reason) != (self.stage, self.reason):
            self.stage, self.reason = stage, reason
            self.untold = self.untold[1 - _MOST_UNTOLD :] + [[told or stage, reason]]
            self.keep()

    def tell(self, wake):
        """As events, each on flash before it is forgotten: what comes twice after a loss of power is known by its stage."""
        if not self.untold:
            return
        from node.telling import tell

        for stage, reason in self.untold:
            details = [("assignment", self.assignment), ("attempt", self.attempt), ("stage", stage)]
            if reason:
                details.append(("reason", reason))
            tell(wake, "update", details)
        self.untold = []
        self.keep()

    def keep(self):
        fields = [self.assignment, self.attempt, self.target, self.counter]
        fields += [self.stage, self.reason, self.faults, self.untold]
        nvs = esp32.NVS("upd")
        nvs.set_blob("job", cbor.encode(fields))
        nvs.commit()


def load():
    """The job on flash; None when there is none."""
    try:
        fields = cbor.decode(config.blob("upd", "job", _MOST_BYTES))
    except (NotProvisioned, ValueError):
        return None
    if type(fields) is not list or len(fields) != _FIELDS:
        return None
    job = Job(*fields[:4])
    job.stage, job.reason, job.faults, job.untold = fields[4:]
    return job


def forget():
    """There is none any more."""
    nvs = esp32.NVS("upd")
    nvs.erase_key("job")
    nvs.commit()


def understood(wanted):
    """The job that a desired state asks for. Raises ValueError when it is none."""
    try:
        numbers = wanted["assignment"], wanted["attempt"], wanted["counter"]
        target = wanted["target"]
    except (KeyError, TypeError):
        raise ValueError("des release")
    for number in numbers:
        if type(number) is not int or not 0 <= number < 1 << 32:
            raise ValueError("des release")
    if type(target) is not str or not 0 < len(target) <= _MAX_TARGET:
        raise ValueError("des release")
    return Job(numbers[0], numbers[1], target, numbers[2])
