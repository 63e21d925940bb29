"""The parts list of a release: CycloneDX 1.6 in JSON (https://cyclonedx.org/docs/1.6/json/), the same bytes for the same release.

It names the firmware, the MicroPython below it (the one that the release brings, with its hash, or the lowest that may run it) and every
module with its hash; and until when the release is supported, which is a property because the standard has no field for it. What is
inside MicroPython's image (ESP-IDF, mbedTLS) that image's maker lists.
"""

from __future__ import annotations

import json
import uuid
from datetime import UTC, date, datetime
from typing import Any

from fleet_server.wire.app_image import dotted
from fleet_server.wire.manifest import Manifest

SUPPORT_UNTIL = "stadtsensor:support_until"
_OURS = "stadtsensor"
_LICENCE = [{"license": {"id": "Apache-2.0"}}]
# Drawn once: names the lists of this project among all others (RFC 9562 §5.5).
_NAMESPACE = uuid.UUID("5b0c9c0e-5d1c-4a7e-9a30-6a1f4f6f2a51")


def make_sbom(manifest: Manifest, *, support_until: date) -> bytes:
    """The parts list of the release that this manifest describes."""
    model = manifest.models[0]
    about = f"{model}/{manifest.version}/{manifest.bundle_sha256}"
    if manifest.image is not None:
        about += f"/{manifest.image.sha256.hex()}"
    serial = uuid.uuid5(_NAMESPACE, about)
    content = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {
            "timestamp": f"{datetime.fromtimestamp(manifest.built_utc_s, UTC):%Y-%m-%dT%H:%M:%SZ}",
            "component": _firmware(manifest, model, support_until),
        },
        "components": [_micropython(manifest), *_modules(manifest)],
        "dependencies": [
            {
                "ref": _firmware_ref(manifest),
                "dependsOn": [
                    _micropython_purl(manifest),
                    *(_module_purl(manifest, file.path) for file in manifest.files),
                ],
            }
        ],
    }
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()


def _firmware(manifest: Manifest, model: str, support_until: date) -> dict[str, Any]:
    properties = {
        "stadtsensor:model": model,
        "stadtsensor:counter": str(manifest.counter),
        "stadtsensor:bundle_sha256": manifest.bundle_sha256,
        SUPPORT_UNTIL: support_until.isoformat(),
    }
    return {
        "type": "firmware",
        "bom-ref": _firmware_ref(manifest),
        "name": "stadtsensor-node",
        "version": manifest.version,
        "description": f"Firmware of the node model {model}",
        "licenses": _LICENCE,
        "purl": f"pkg:generic/{_OURS}-node@{manifest.version}",
        "properties": [{"name": name, "value": value} for name, value in properties.items()],
    }


def _micropython(manifest: Manifest) -> dict[str, Any]:
    version = _dotted(manifest)
    image = manifest.image
    brought = (
        {} if image is None else {"hashes": [{"alg": "SHA-256", "content": image.sha256.hex()}]}
    )
    return {
        "type": "platform",
        "bom-ref": _micropython_purl(manifest),
        "name": "micropython",
        "version": version,
        "description": "The lowest version that may run it"
        if image is None
        else "The version that it brings, as a whole image",
        **brought,
        "licenses": [{"license": {"id": "MIT"}}],
        "cpe": f"cpe:2.3:a:micropython:micropython:{version}:*:*:*:*:*:*:*",
        "purl": _micropython_purl(manifest),
    }


def _modules(manifest: Manifest) -> list[dict[str, Any]]:
    return [
        {
            "type": "file",
            "bom-ref": _module_purl(manifest, file.path),
            "name": file.path,
            "version": manifest.version,
            "hashes": [{"alg": "SHA-256", "content": file.sha256.hex()}],
            "licenses": _LICENCE,
            "purl": _module_purl(manifest, file.path),
        }
        for file in manifest.files
    ]


def _firmware_ref(manifest: Manifest) -> str:
    return f"pkg:generic/{_OURS}-node@{manifest.version}"


def _micropython_purl(manifest: Manifest) -> str:
    return f"pkg:github/micropython/micropython@v{_dotted(manifest)}"


def _module_purl(manifest: Manifest, path: str) -> str:
    return f"pkg:generic/{_OURS}/{path}@{manifest.version}"


def _dotted(manifest: Manifest) -> str:
    """The version of MicroPython that it runs on."""
    return dotted(manifest.micropython if manifest.image is None else manifest.image.micropython)
