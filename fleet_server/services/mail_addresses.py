"""What can be an e-mail address."""

from __future__ import annotations

import re

LONGEST = 254  # RFC 5321, 4.5.3.1.3, without the brackets
_MAIL = re.compile(r"[^@\s,;<>\"]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9.-]{0,250}[A-Za-z0-9])?")


def is_mail_address(text: str) -> bool:
    """Whether one mail address stands here, and nothing else.

    >>> is_mail_address("office@example.org"), is_mail_address("a@b, c@d"), is_mail_address("a@b\\nBcc: c@d")
    (True, False, False)
    """
    return _MAIL.fullmatch(text) is not None and text.isprintable()
