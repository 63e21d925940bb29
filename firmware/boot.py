"""First code after a reset: arms the watchdog and picks the slot, nothing else. Never part of a bundle."""

import machine

machine.WDT(timeout=30_000)

import sys

import slots

# Not in front: what is built in is looked for there.
sys.path.insert(1, "/" + slots.begin_wake(machine.reset_cause()).slot)
