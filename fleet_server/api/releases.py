"""Releases of the firmware: what is signed by whom, what is in them, who runs them; and publishing them."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from flask import current_app
from flask.views import MethodView
from marshmallow import Schema, ValidationError, fields, validate

from fleet_server import clock
from fleet_server.api.noun import Noun
from fleet_server.api.schemas import ListQuery
from fleet_server.http_shared.access import needs
from fleet_server.http_shared.database import current_session
from fleet_server.http_shared.uploads import takes_file
from fleet_server.services import keyset, online_keys, release_repository, releases, releasing
from fleet_server.services.file_store import FileStore, open_store
from fleet_server.services.releases import ReleaseFilter, ReleaseLine, RunningNode, SignedRelease
from fleet_server.services.releasing import Published
from fleet_server.services.rights import Right
from fleet_server.settings import Settings
from fleet_server.wire import app_image
from fleet_server.wire.signed_releases import MOST_METADATA_BYTES

release_noun = Noun("releases", "Signed versions of the firmware")
components = Noun("components", "Parts of releases, and the nodes that run them")

_MOST_PUBLISHED_BYTES = 16 * 1024 * 1024
_LONGEST_FILE_BYTES = app_image.MOST_BYTES * 4 // 3  # as base64
_MOST_HASHES = 2000
_SHA256 = validate.Regexp(r"^[0-9a-f]{64}\Z")
_ROLE = validate.Regexp(r"^[a-z0-9-]{1,32}\Z")


class Base64(fields.String):
    """Bytes, as text of JSON."""

    def __init__(self, *, most_bytes: int, **more: Any) -> None:
        self._longest = (most_bytes + 2) // 3 * 4
        about = {"maxLength": self._longest, "description": "bytes in base64 (RFC 4648 §4)"}
        super().__init__(metadata=about, **more)

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any
    ) -> Any:
        text = super()._deserialize(value, attr, data, **kwargs)
        if len(text) > self._longest:
            raise ValidationError(f"Longer than {self._longest} characters.")
        try:
            return base64.b64decode(text.encode("ascii"), validate=True)
        except (binascii.Error, ValueError) as problem:
            raise ValidationError("Not base64.") from problem


class ReleaseSchema(Schema):
    """One release for one node model. It never changes; withdrawn ones are not offered to nodes."""

    id = fields.Integer(required=True, attribute="release.id")
    model = fields.String(required=True, attribute="release.model")
    version = fields.String(required=True, attribute="release.version")
    counter = fields.Integer(required=True, attribute="release.counter")
    bundle_sha256 = fields.String(required=True, attribute="release.bundle_sha256")
    manifest_sha256 = fields.String(required=True, attribute="release.manifest_sha256")
    size_bytes = fields.Integer(required=True, attribute="release.size_bytes")
    image_micropython = fields.String(
        required=True,
        allow_none=True,
        attribute="release.image_micropython",
        metadata={
            "description": "the version of the whole MicroPython that it brings, which was not tried on hardware; null: none"
        },
    )
    image_bytes = fields.Integer(required=True, allow_none=True, attribute="release.image_bytes")
    image_sha256 = fields.String(required=True, allow_none=True, attribute="release.image_sha256")
    notes = fields.String(required=True, attribute="release.notes")
    support_until = fields.AwareDateTime(required=True, attribute="release.support_until")
    uploaded_at = fields.AwareDateTime(required=True, attribute="release.uploaded_at")
    uploaded_by = fields.String(required=True, attribute="release.uploaded_by")
    withdrawn_at = fields.AwareDateTime(
        required=True, allow_none=True, attribute="release.withdrawn_at"
    )
    nodes = fields.Integer(required=True, metadata={"x-reported": True})


class SignatureSchema(Schema):
    """One key that counts for a role."""

    keyid = fields.String(required=True)
    holder = fields.String(required=True, allow_none=True)
    scheme = fields.String(required=True)
    has_signed = fields.Boolean(required=True)


class RoleSchema(Schema):
    """A role's newest metadata, and who signed them."""

    role = fields.String(required=True)
    version = fields.Integer(required=True)
    expires_at = fields.AwareDateTime(required=True)
    threshold = fields.Integer(required=True)
    signatures = fields.List(fields.Nested(SignatureSchema), required=True)


class OneReleaseSchema(ReleaseSchema):
    """One release with the role that signs it."""

    role = fields.Nested(RoleSchema, required=True, allow_none=True, metadata={"x-reported": True})


class SbomSchema(Schema):
    """The parts list, CycloneDX 1.6."""

    bomFormat = fields.String(required=True)  # noqa: N815 - the standard's own
    specVersion = fields.String(required=True)  # noqa: N815 - the standard's own
    serialNumber = fields.String()  # noqa: N815 - the standard's own
    version = fields.Integer()
    metadata = fields.Dict(keys=fields.String())
    components = fields.List(fields.Dict(keys=fields.String()))
    dependencies = fields.List(fields.Dict(keys=fields.String()))


class ReleaseQuery(ListQuery):
    model = fields.String(metadata={"description": "only for this node model"})
    component = fields.String(metadata={"description": "only with this part, like micropython"})
    purl = fields.String(
        metadata={"description": "only with this part, as a package URL with or without version"}
    )
    versions = fields.String(
        load_default="",
        metadata={
            "description": "a range like >=1.20,<1.27.3: of that part, or of the release where no part is named"
        },
    )
    is_withdrawn = fields.Boolean()


class RunningQuery(ListQuery):
    component = fields.String(
        metadata={
            "description": "the part, like micropython; the firmware itself when neither it nor purl is named"
        }
    )
    purl = fields.String(metadata={"description": "the part as a package URL"})
    versions = fields.String(load_default="", metadata={"description": "a range of its versions"})
    model = fields.String(metadata={"description": "only nodes of this model"})


class RunningNodeSchema(Schema):
    """A node that says that it runs a release with this part."""

    node_id = fields.String(required=True)
    label = fields.String(required=True)
    model = fields.String(required=True)
    version = fields.String(required=True)
    release_id = fields.Integer(required=True)
    component = fields.String(required=True)
    component_version = fields.String(required=True)
    purl = fields.String(required=True)


class FileSchema(Schema):
    sha256 = fields.String(required=True, validate=_SHA256)
    content = Base64(required=True, most_bytes=app_image.MOST_BYTES)


class HashesSchema(Schema):
    sha256 = fields.List(
        fields.String(validate=_SHA256), required=True, validate=validate.Length(max=_MOST_HASHES)
    )


class PublishedSchema(Schema):
    """What is new; what is known already may be there too. `documents`: manifests and parts lists by target path."""

    roots = fields.List(
        Base64(most_bytes=MOST_METADATA_BYTES),
        load_default=list,
        validate=validate.Length(max=100),
    )
    targets = Base64(load_default=None, allow_none=True, most_bytes=MOST_METADATA_BYTES)
    roles = fields.Dict(
        keys=fields.String(validate=_ROLE),
        values=Base64(most_bytes=MOST_METADATA_BYTES),
        load_default=dict,
        validate=validate.Length(max=200),
    )
    documents = fields.Dict(
        keys=fields.String(validate=validate.Length(1, 128)),
        values=Base64(most_bytes=releasing.MOST_SBOM_BYTES),
        load_default=dict,
        validate=validate.Length(max=1000),
    )


class WhatChangedSchema(Schema):
    """What changed: versions of metadata by role, and releases as model and version."""

    metadata = fields.Dict(keys=fields.String(), values=fields.Integer(), required=True)
    releases = fields.List(fields.List(fields.String()), required=True)
    withdrawn = fields.List(fields.List(fields.String()), required=True)


class RepositorySchema(Schema):
    """Where everything stands; empty where this server has no releases."""

    roles = fields.List(fields.Nested(RoleSchema), required=True)
    counters = fields.Dict(
        keys=fields.String(),
        values=fields.Integer(),
        required=True,
        metadata={"description": "the highest counter that is known, by node model"},
    )


class PublicKeySchema(Schema):
    format = fields.Integer(required=True)
    holder = fields.String(required=True)
    keyid = fields.String(required=True)
    key = fields.Dict(keys=fields.String(), required=True)


class OnlineKeysSchema(Schema):
    """The server's own public keys, as `provision release root` wants them."""

    snapshot = fields.Nested(PublicKeySchema, required=True)
    timestamp = fields.Nested(PublicKeySchema, required=True)


@release_noun.route("")
class Releases(MethodView):
    @needs(Right.SEE_FLEET)
    @release_noun.lists(ReleaseSchema, ReleaseQuery)
    def get(self, query: dict[str, Any]) -> keyset.Page[ReleaseLine]:
        """Releases, newest first"""
        limit, after = query.pop("limit"), query.pop("after")
        wanted = ReleaseFilter(**query)
        return releases.release_page(current_session(), wanted, limit=limit, after=after)

    @needs(Right.AUTHOR_RELEASES)
    @takes_file(_MOST_PUBLISHED_BYTES)
    @release_noun.acts(PublishedSchema, WhatChangedSchema)
    def post(self, given: dict[str, Any]) -> releasing.Outcome:
        """Publish what is signed: all of it is taken or nothing"""
        return releasing.publish(
            current_session(),
            Published(**given),
            store=_open_files,
            keys_dir=_settings().release_keys_dir,
            now=clock.now(),
        )


@release_noun.route("/files")
class ReleaseFiles(MethodView):
    @needs(Right.AUTHOR_RELEASES)
    @takes_file(_LONGEST_FILE_BYTES)
    @release_noun.acts(FileSchema, None)
    def post(self, given: dict[str, Any]) -> None:
        """Keep one file of a bundle, or a MicroPython image, that will be published"""
        releasing.keep_file(_open_files(), given["sha256"], given["content"])


@release_noun.route("/files/missing")
class MissingFiles(MethodView):
    @needs(Right.AUTHOR_RELEASES)
    @release_noun.acts(HashesSchema, HashesSchema)
    def post(self, given: dict[str, Any]) -> dict[str, list[str]]:
        """Which of these files still have to be sent"""
        return {"sha256": releasing.missing_files(_open_files(), given["sha256"])}


@release_noun.route("/repository")
class RepositoryOfReleases(MethodView):
    @needs(Right.SEE_FLEET)
    @release_noun.shows(RepositorySchema)
    def get(self) -> dict[str, object]:
        """Who signs what, and until when it is good"""
        session = current_session()
        return {
            "roles": release_repository.role_states(session),
            "counters": releases.highest_counters(session),
        }


@release_noun.route("/online-keys")
class OnlineKeys(MethodView):
    @needs(Right.AUTHOR_RELEASES)
    @release_noun.shows(OnlineKeysSchema)
    def get(self) -> dict[str, dict[str, Any]]:
        """The server's own public keys, for a root that shall name them"""
        return online_keys.cards(_settings().release_keys_dir)


@release_noun.route("/<row_id:release_id>")
class OneRelease(MethodView):
    @needs(Right.SEE_FLEET)
    @release_noun.shows(OneReleaseSchema)
    def get(self, release_id: int) -> SignedRelease:
        """One release, and who signed it"""
        return releases.signed_release(current_session(), release_id)


@release_noun.route("/<row_id:release_id>/sbom")
class Sbom(MethodView):
    @needs(Right.SEE_FLEET)
    @release_noun.shows(SbomSchema)
    def get(self, release_id: int) -> dict[str, Any]:
        """Its parts list"""
        return releases.find(current_session(), release_id).sbom


@components.route("/nodes")
class NodesWithComponent(MethodView):
    @needs(Right.SEE_FLEET)
    @components.lists(RunningNodeSchema, RunningQuery)
    def get(self, query: dict[str, Any]) -> keyset.Page[RunningNode]:
        """Nodes that run a version with this part: whom a vulnerability concerns"""
        limit, after = query.pop("limit"), query.pop("after")
        wanted = ReleaseFilter(**query)
        return releases.nodes_with(current_session(), wanted, limit=limit, after=after)


def _settings() -> Settings:
    settings: Settings = current_app.config["FLEET_SETTINGS"]
    return settings


def _open_files() -> FileStore:
    return open_store(_settings().files_url)
