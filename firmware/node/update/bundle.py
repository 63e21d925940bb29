"""What is signed, into the other slot: the manifest, and what it names."""

import os

from node.config import running_bundle
from node.update import Refused
from node.update.download import MANIFEST, digest_of, make_folders
from node.update.job import DOWNLOADING, INSTALLING, VERIFIED
from node.update.manifest import MOST_BYTES, Manifest


def install(job, model, length, sha256, fetcher, state):
    """The other slot is whole when this returns. `length`, `sha256`: of the manifest, by the metadata.

    Raises Refused, and what the network raises; what has come stays.
    """
    from node.update.packed import Unpacker

    unpacker = Unpacker()  # before the memory is in pieces again
    if not _is_manifest(length, sha256):
        make_folders(MANIFEST)
        if not fetcher.target(job.target_file(sha256), length, MANIFEST):
            raise Refused("manifest missing")
        if not _is_manifest(length, sha256):
            os.remove(MANIFEST)
            raise Refused("manifest hash")
    manifest = _manifest(length, model, job.counter)
    if manifest.image:
        from node.update import image

        image.bring(manifest.image, job, fetcher, state)
    job.enter(DOWNLOADING)
    from node.update import install

    install.fill(manifest, fetcher, unpacker, state)
    fetcher.close()
    job.enter(VERIFIED)
    job.enter(INSTALLING)
    install.finish(manifest, job)


def _is_manifest(length, sha256):
    digest, have = digest_of(MANIFEST)
    return have == length and digest is not None and digest.digest().hex() == sha256


def _manifest(length, model, counter):
    if length > MOST_BYTES:
        raise Refused("manifest too long")
    try:
        manifest = Manifest(MANIFEST)
    except ValueError as error:
        raise Refused(str(error))
    fault = manifest.fault(model)
    if not fault and manifest.counter != counter:
        fault = "counter differs"
    if not fault and not manifest.allows_downgrade:
        if manifest.counter <= running_bundle().get("counter", 0):
            fault = "older than installed"
    if fault:
        raise Refused(fault)
    return manifest
