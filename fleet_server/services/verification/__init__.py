"""The parts of `fleet verify`, one for each kind of promise; `services/verifying.py` runs them.

A fault is reported once, as the kind that it is: what hangs on a damaged row is not reported on top of it. What is not
checked, because nothing else in the database says it too, stands in docs/decisions/0024.
"""
