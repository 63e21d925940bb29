"""First code after a reset: arms the watchdog and picks the slot, nothing else. Never part of a bundle."""

import machine

machine.WDT(timeout=30_000)

import sys

import slots

sys.path.insert(0, "/" + slots.select(machine.reset_cause()).slot)
