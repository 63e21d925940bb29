"""What an alert says, in German and English: the same words in a mail, on a page and on a terminal.

`details` may come from an earlier version; what is not there is left out, never an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fleet_server.models import AlertKind, Severity
from fleet_server.services import campaign_words

LANGUAGES = ("de", "en")

KINDS: Mapping[AlertKind, Mapping[str, str]] = {
    AlertKind.FLEET_SILENT: {"en": "Nobody is heard", "de": "Niemand ist zu hören"},
    AlertKind.PLACE_SILENT: {"en": "A place is silent", "de": "Ein Ort schweigt"},
    AlertKind.OFFLINE: {"en": "Silent", "de": "Verstummt"},
    AlertKind.LATE: {"en": "Late", "de": "Überfällig"},
    AlertKind.BATTERY: {"en": "Battery", "de": "Batterie"},
    AlertKind.CLOCK_DRIFT: {"en": "Clock runs wrong", "de": "Uhr geht falsch"},
    AlertKind.SPOOL_GROWING: {"en": "Spool grows", "de": "Speicher läuft voll"},
    AlertKind.REBOOT_LOOP: {"en": "Restarts again and again", "de": "Startet immer wieder neu"},
    AlertKind.CERTIFICATE: {"en": "Certificate runs out", "de": "Zertifikat läuft ab"},
    AlertKind.SENSOR: {"en": "Probe gives nothing", "de": "Sonde liefert nichts"},
    AlertKind.RADIO: {"en": "Radio gets worse", "de": "Funk wird schlechter"},
    AlertKind.JOB: {"en": "The server's own work", "de": "Arbeit des Servers"},
    AlertKind.SIGNATURE: {"en": "Signature runs out", "de": "Signatur läuft ab"},
    AlertKind.CAMPAIGN: {"en": "Update has stopped", "de": "Aktualisierung hält an"},
}
SEVERITIES: Mapping[Severity, Mapping[str, str]] = {
    Severity.NOTICE: {"en": "notice", "de": "Hinweis"},
    Severity.WARNING: {"en": "warning", "de": "Warnung"},
    Severity.URGENT: {"en": "urgent", "de": "dringend"},
}
_SENTENCES: Mapping[AlertKind, Mapping[str, str]] = {
    AlertKind.FLEET_SILENT: {
        "en": "No node was heard since {last_heard_at}; {due_nodes} of {nodes} were due. Look at the broker, ingest and the network, not at the nodes.",
        "de": "Seit {last_heard_at} war kein Knoten zu hören; {due_nodes} von {nodes} waren fällig. Broker, Ingest und Netz prüfen, nicht die Knoten.",
    },
    AlertKind.PLACE_SILENT: {
        "en": "{silent_nodes} of {nodes} nodes around {near} are silent together. Look at the network there.",
        "de": "{silent_nodes} von {nodes} Knoten um {near} schweigen zugleich. Das Netz dort prüfen.",
    },
    AlertKind.OFFLINE: {
        "en": "Not heard since {last_heard_at}, for three of its intervals. Its readings are on its flash. Look at battery, Wi-Fi and antenna.",
        "de": "Seit {last_heard_at} nicht gehört, drei seiner Abstände lang. Seine Messwerte liegen auf seinem Flash. Batterie, WLAN und Antenne prüfen.",
    },
    AlertKind.LATE: {
        "en": "Not heard since {last_heard_at}; one missed time is radio.",
        "de": "Seit {last_heard_at} nicht gehört; einmal ausgeblieben ist Funk.",
    },
    AlertKind.BATTERY: {
        "en": "The battery lasts {days} more ({battery_mv} mV now). Then the node leaves its radio off.",
        "de": "Die Batterie reicht noch {days} (jetzt {battery_mv} mV). Danach lässt der Knoten seinen Funk aus.",
    },
    AlertKind.CLOCK_DRIFT: {
        "en": "The clock runs wrong by {drift_ppm} ppm while the node sleeps.",
        "de": "Die Uhr geht im Schlaf um {drift_ppm} ppm falsch.",
    },
    AlertKind.SPOOL_GROWING: {
        "en": "The node holds {packs} packs without a receipt, more each day. Look at `fleet worker` and the node's radio.",
        "de": "Der Knoten hält {packs} Packs ohne Quittung, jeden Tag mehr. `fleet worker` und den Funk des Knotens prüfen.",
    },
    AlertKind.REBOOT_LOOP: {
        "en": "The node began anew {restarts} times since yesterday (last cause: {reset_cause}). Look at its events and its supply.",
        "de": "Der Knoten hat seit gestern {restarts}-mal neu begonnen (letzter Grund: {reset_cause}). Ereignisse und Versorgung prüfen.",
    },
    AlertKind.CERTIFICATE: {
        "en": "The certificate runs out at {expires_at} and was not renewed.",
        "de": "Das Zertifikat läuft am {expires_at} ab und wurde nicht erneuert.",
    },
    AlertKind.SENSOR: {
        "en": "Channel {channel} has given no value several times in a row. Look at the probe and its cable.",
        "de": "Kanal {channel} hat mehrmals nacheinander keinen Wert geliefert. Sonde und Kabel prüfen.",
    },
    AlertKind.RADIO: {
        "en": "The signal fell from {before_dbm} dBm to {now_dbm} dBm. Look at what stands between the node and its access point.",
        "de": "Das Signal fiel von {before_dbm} dBm auf {now_dbm} dBm. Prüfen, was zwischen Knoten und Zugangspunkt steht.",
    },
    AlertKind.SIGNATURE: {
        "en": "What {role} signs of the releases runs out at {expires_at}; nodes then take no update. `fleet release status` shows who has to sign.",
        "de": "Was {role} an Versionen signiert, läuft am {expires_at} ab; dann nehmen Knoten keine Aktualisierung an. `fleet release status` zeigt, wer signieren muss.",
    },
    AlertKind.CAMPAIGN: {
        "en": "The update to {version} ({model}) has paused by itself: {reason}. Look at its nodes, then let it go on or abort it.",
        "de": "Die Aktualisierung auf {version} ({model}) hat von selbst angehalten: {reason}. Ihre Knoten ansehen, dann weiterlaufen lassen oder abbrechen.",
    },
}
_JOB: Mapping[str, Mapping[str, str]] = {
    "fails": {
        "en": "`{job}` fails again and again: {reason}",
        "de": "`{job}` scheitert immer wieder: {reason}",
    },
    "overdue": {
        "en": "`{job}` has not run as it should; the last time was {ran_at}. Look at `fleet worker`.",
        "de": "`{job}` lief nicht wie vorgesehen, zuletzt {ran_at}. `fleet worker` prüfen.",
    },
}
_HELD_UP: Mapping[str, str] = {
    "en": "Revision {revision} is held up, and tried again by itself: {reason} Nothing of it was changed yet; look at /fleet/revisions/{revision}.",
    "de": "Neuberechnung {revision} kommt nicht voran und wird von selbst erneut versucht: {reason} Noch ist nichts geändert; siehe /fleet/revisions/{revision}.",
}
_NO_BACKUP: Mapping[str, str] = {
    "en": "No backup was made for days; the last one: {ran_at}. Look at what runs `fleet db backup`.",
    "de": "Seit Tagen keine Sicherung, die letzte: {ran_at}. Prüfen, was `fleet db backup` ausführt.",
}


class _Lenient(dict[str, Any]):
    def __missing__(self, _key: str) -> str:
        return "?"


def kind_word(kind: AlertKind, language: str) -> str:
    return KINDS[kind][language]


def severity_word(severity: Severity, language: str) -> str:
    return SEVERITIES[severity][language]


def sentence(kind: AlertKind, details: Mapping[str, Any], language: str) -> str:
    """What is wrong, and where to look.

    >>> sentence(AlertKind.LATE, {"last_heard_at": "2026-07-01T12:00:00Z"}, "en")
    'Not heard since 2026-07-01 12:00 UTC; one missed time is radio.'
    """
    told = {name: _plain(name, value) for name, value in details.items()}
    if kind is AlertKind.BATTERY:
        told["days"] = _days(details.get("days_low"), details.get("days_high"), language)
    if kind is AlertKind.CAMPAIGN:
        told["reason"] = campaign_words.kept_stop_words(
            details.get("stop"), details.get("reason"), language
        )
    if kind is AlertKind.JOB and details.get("ran_at") is None:
        told["ran_at"] = "nie" if language == "de" else "never"
    return _pattern(kind, details, language).format_map(_Lenient(told))


def _pattern(kind: AlertKind, details: Mapping[str, Any], language: str) -> str:
    if kind is not AlertKind.JOB:
        return _SENTENCES[kind][language]
    trouble = details.get("trouble", "overdue")
    if details.get("job") == "backup" and trouble == "overdue":
        return _NO_BACKUP[language]
    if details.get("revision") is not None:
        return _HELD_UP[language]
    return _JOB[trouble][language]


def subject_word(subject: str, label: str | None, language: str) -> str:
    """What it is about, as people call it.

    >>> subject_word("network Stadtwerke", None, "de")
    'WLAN Stadtwerke'
    """
    kind, _, name = subject.partition(" ")
    if kind == "node":
        return label or name
    if kind == "place":
        latitude, _, longitude = name.partition("/")
        return f"{int(latitude) / 100:.2f}° N, {int(longitude) / 100:.2f}° E"
    if kind == "network":
        return f"{'WLAN' if language == 'de' else 'Wi-Fi'} {name}"
    if kind == "job":
        return f"Aufgabe {name}" if language == "de" else f"job {name}"
    if kind == "campaign":
        return f"Kampagne {name}" if language == "de" else f"campaign {name}"
    if kind == "role":
        return f"Rolle {name}" if language == "de" else f"role {name}"
    return "alle Knoten" if language == "de" else "all nodes"


def page_of(subject: str) -> str | None:
    """Where on the server's pages somebody decides about it; None where that is the list of alerts.

    >>> page_of("campaign 7"), page_of("network Stadtwerke")
    ('/fleet/campaigns/7', None)
    """
    kind, _, name = subject.partition(" ")
    if kind == "node":
        return f"/fleet/nodes/{name}"
    if kind == "campaign":
        return f"/fleet/campaigns/{name}"
    return "/fleet/releases#roles" if kind == "role" else None


def _days(low: Any, high: Any, language: str) -> str:
    """`12 to 20 days`; the end that is not known is not made up."""
    days = "Tage" if language == "de" else "days"
    if low is None:
        return f"? {days}"
    if high is None:
        return f"mindestens {low} {days}" if language == "de" else f"at least {low} {days}"
    if low == high:
        return f"{low} {days}"
    return f"{low} {'bis' if language == 'de' else 'to'} {high} {days}"


def _plain(name: str, value: Any) -> Any:
    if value is None:
        return "?"
    if name.endswith("_at"):
        return str(value)[:16].replace("T", " ") + " UTC"
    return value
