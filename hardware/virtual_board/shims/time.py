from utime import sleep_us, ticks_add, ticks_cpu, ticks_diff, ticks_ms, ticks_us, time_ns
from utime import gmtime as _gmtime, mktime as _mktime, time as _time
from _board import call as _call
from micropython import const as _const

# An ESP32 counts from 2000-01-01, the machine's C library from 1970-01-01.
_EPOCH_2000_S = _const(946684800)


def time():
    return int(_time())


def gmtime(secs=None):
    return _gmtime((time() if secs is None else int(secs)) + _EPOCH_2000_S)[:8]


localtime = gmtime


def mktime(local_time):
    return int(_mktime(tuple(local_time[:6]) + (0, 0, 0))) - _EPOCH_2000_S


def sleep_ms(ms):
    # One call to the host: the machine's own sleeps in steps of 0.5 ms and asks for the time after each.
    _call("advance", str(max(0, int(ms)) * 1000))


def sleep(seconds):
    sleep_ms(int(seconds * 1000))
