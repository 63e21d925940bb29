"""A revocation list as a broker needs it: which serials are on it, read again when the file changes."""

from __future__ import annotations

import ssl
from contextlib import suppress
from pathlib import Path

from fleet_server.services.authority import RevocationListUnreadable, load_crl
from fleet_server.services.fresh_files import Stamp, stamp_of


class RevocationList:
    """The serials on one authority's list.

    A file that cannot be read leaves the last known list in force.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: Stamp | None = None
        self._context: ssl.SSLContext | None = None
        self.serials: frozenset[int] = frozenset()

    def tell(self, context: ssl.SSLContext) -> None:
        """Let the handshake know the list, now and after each change; OpenSSL takes the newest it was given."""
        self._context = context
        context.load_verify_locations(self._path)

    def load(self) -> None:
        """Read it, whatever was known before.

        Raises:
            RevocationListUnreadable: it is not there, or is no revocation list.
        """
        stamp = stamp_of(self._path)
        self.serials = frozenset(entry.serial_number for entry in load_crl(self._path))
        self._seen = stamp
        if self._context is not None:
            self._context.load_verify_locations(self._path)

    def reload_when_changed(self) -> bool:
        """True when there was another list than last time, which is in force now."""
        if self.is_current():
            return False
        with suppress(RevocationListUnreadable, OSError):
            self.load()
            return True
        return False

    def is_current(self) -> bool:
        """True when what is known here is what the file says now."""
        return stamp_of(self._path) == self._seen
