"""The first code that MicroPython runs, before boot.py: mounts the file system, or sleeps and tries again.

MicroPython's own stays awake for ever in front of a damaged file system, which empties a battery in days. Frozen into our
image; not tried on hardware.
"""

import gc

import first_mount

first_mount.run()
del first_mount
gc.collect()
