"""States of calibrations in the reader's language."""

from __future__ import annotations

from flask_babel import lazy_gettext

from fleet_server.models import CalibrationStatus
from fleet_server.web.words import Word

STATUS_WORDS = {
    CalibrationStatus.DRAFT: Word(
        "○",
        lazy_gettext("draft"),
        lazy_gettext("Makes no value yet: somebody else has to approve it."),
    ),
    CalibrationStatus.APPROVED: Word(
        "✓", lazy_gettext("approved"), lazy_gettext("Makes the values of its time.")
    ),
    CalibrationStatus.SUPERSEDED: Word(
        "–",
        lazy_gettext("superseded"),
        lazy_gettext("Makes the values from before a later one begins."),
    ),
    CalibrationStatus.WITHDRAWN: Word(
        "✕", lazy_gettext("withdrawn"), lazy_gettext("Makes no value; its record stays.")
    ),
}
