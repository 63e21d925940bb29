"""The technician's and release engineer's bench: flash, enrol, run virtual boards."""
