"""First code after a reset: arms the watchdog and picks the slot, nothing else. Never part of a bundle."""

import machine

machine.WDT(timeout=30_000)

import sys

import judge

# Not in front: what is built in is looked for there.
sys.path.insert(1, "/" + judge.begin_wake(machine.reset_cause()).slot)

# Whoever needs it at the end of the wake loads it again.
del judge, sys.modules["judge"]
