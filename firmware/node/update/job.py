"""The update that the node has been given: what it is and how far it has come, over every loss of power.

NVS `upd`.`job`: [assignment, attempt, target, counter, stage, faults, last reason told] (CBOR); a new assignment takes the old one's place.
What happens with it is told by events, each kept in the spool as every reading is.
"""

import esp32

from node import cbor, config
from node.errors import NotProvisioned

# In the order in which they follow each other; whoever reads them on the server has the same names (fleet_server/wire/updates.py).
ACCEPTED = "accepted"
DOWNLOADING = "downloading"
VERIFIED = "verified"
INSTALLING = "installing"
REBOOTING = "rebooting"
TESTING = "testing"
# Ends.
CONFIRMED = "confirmed"  # not told: the state message shows it
ALREADY_INSTALLED = "already_installed"
REJECTED = "rejected"
FAILED = "failed"
ROLLED_BACK = "rolled_back"
CANCELED = "canceled"

_ON_THE_WAY = (ACCEPTED, DOWNLOADING, VERIFIED, INSTALLING)
_FIELDS = 7
_MAX_REASON = 40
_MAX_TARGET = 96


class Job:
    """`faults`: tries in a row that ended without a byte gained."""

    def __init__(self, assignment, attempt, target, counter):
        self.assignment = assignment
        self.attempt = attempt
        self.target = target
        self.counter = counter
        self.stage = ""
        self.faults = 0
        self.told = ""

    @property
    def is_on_the_way(self):
        """True before the new version has had its first wake, and while nothing ended it."""
        return self.stage in _ON_THE_WAY

    def is_for(self, wanted):
        return (self.assignment, self.attempt) == (wanted["assignment"], wanted["attempt"])

    def enter(self, wake, stage, reason=""):
        """Be at another stage, and tell of it once; a reason why it does not go on is told when it changes."""
        if stage == self.stage and reason == self.told:
            return
        self.stage, self.told = stage, reason[:_MAX_REASON]
        details = (("assignment", self.assignment), ("attempt", self.attempt), ("stage", stage))
        if reason:
            details += (("reason", self.told),)
        # On flash before it is noted: told twice is harmless, not at all is not.
        wake.tell(("update", details))
        self.keep()

    def keep(self):
        fields = (
            self.assignment,
            self.attempt,
            self.target,
            self.counter,
            self.stage,
            self.faults,
            self.told,
        )
        nvs = esp32.NVS("upd")
        nvs.set_blob("job", cbor.encode(fields))
        nvs.commit()


def load():
    """The job on flash; None when there is none."""
    try:
        fields = cbor.decode(config.blob("upd", "job", 256))
    except (NotProvisioned, ValueError):
        return None
    if type(fields) is not list or len(fields) != _FIELDS:
        return None
    job = Job(*fields[:4])
    job.stage, job.faults, job.told = fields[4:]
    return job


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
