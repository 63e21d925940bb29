"""A browser's name as its owner knows it: short, and without what would tell one from a thousand others."""

from __future__ import annotations

import re

# The first that is found: browsers carry the names of others behind their own.
_BROWSERS = (
    ("Edg", "Edge"),
    ("OPR/", "Opera"),
    ("Firefox/", "Firefox"),
    ("FxiOS/", "Firefox"),
    ("Chrome/", "Chrome"),
    ("CriOS/", "Chrome"),
    ("Safari/", "Safari"),
)
_SYSTEMS = (
    ("Android", "Android"),
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Windows", "Windows"),
    ("Mac OS X", "macOS"),
    ("Linux", "Linux"),
)
_FIRST_WORD = re.compile(r"[A-Za-z0-9_.-]{1,30}")


def browser_name(user_agent: str) -> str:
    """What a session is called in the list of its owner.

    >>> browser_name("Mozilla/5.0 (Android 15; Mobile; rv:140.0) Gecko/140.0 Firefox/140.0")
    'Firefox, Android'
    >>> browser_name("curl/8.5.0"), browser_name("")
    ('curl', '?')
    """
    browser = next((name for mark, name in _BROWSERS if mark in user_agent), None)
    system = next((name for mark, name in _SYSTEMS if mark in user_agent), None)
    if browser is None:
        first = _FIRST_WORD.match(user_agent)
        browser = "?" if first is None else first[0]
    return browser if system is None else f"{browser}, {system}"
