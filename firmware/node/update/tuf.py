"""The node's client of The Update Framework: from a trusted root, what a repository offers and a clock to what may be installed.

The workflow is that of the TUF specification 1.0, §5, delegations included. Nothing is trusted before it is verified, and a trusted file
is replaced in one step by a verified one: `root.json`, `timestamp.json`, `snapshot.json`, `targets.json` and one of each delegated role,
byte for byte as fetched. Each is verified again whenever it is read: after a power cut between any two steps the next run goes on.

Memory is short: files are never held, only scanned, and again for a key or a signature when it is wanted. A MemoryError is never taken
for a file that cannot be read: the check against an older version would be left out with it.
"""

import errno
import gc
import hashlib
import os
import time

from micropython import const

from node.update import Refused, keys
from node.update.metadata import PLACE, Scanner

_UNIX_TO_RTC_S = const(946_684_800)  # an ESP32 counts from 2000-01-01
_MOST_ROOTS = const(32)  # in one run; the next goes on from there
_MOST_ROLES = const(32)
_MOST_BITS = const(32)
# The most bytes of a file. The file system has 960 KB, and an old and a new one are there at a time.
_MOST_BYTES = const(32_768)
_MOST_TARGETS_BYTES = const(131_072)
_TOP_LEVEL = ("root", "timestamp", "snapshot", "targets")
_HASHES = {"sha256": str, "sha512": str}
_FILE = {"version": int, "length": int, "hashes": _HASHES}


class Client:
    """What a node trusts of a repository, in a folder.

    `fetch(name, limit)` gets the metadata file `name` (quoted for a URL) into `new` in the folder: True, or False when the repository has
    none. It raises OSError or LinkError for the network, and Refused("endless data") above `limit` bytes. `now_s`: UTC, fixed for the run.
    """

    def __init__(self, folder, fetch, now_s):
        self._folder = folder + "/"
        self._fetch = fetch
        self._now = "%04d-%02d-%02dT%02d:%02d:%02dZ" % time.gmtime(now_s - _UNIX_TO_RTC_S)[:6]

    def refresh(self):
        """Bring root, timestamp, snapshot and targets up to date (§5.3 to §5.6). Raises Refused, and what `fetch` raises."""
        self._update_root()
        self._snapshot = self._updated("snapshot", named_by=self._updated("timestamp"))
        self._updated("targets", "targets", None, self._snapshot, {"targets": {}})

    def target(self, path):
        """(length, SHA-256 in hex, custom) of a target, or None when no role names it (§5.6.7). After `refresh`.

        `sha512`: its SHA-512, or None; one of the two hashes is there. Roles that delegations lead to are fetched, and verified by the keys
        of whoever delegates now.
        """
        wanted = {
            "targets": {path: {"length": int, "hashes": _HASHES, "custom": {"*": True}}},
            "delegations": _delegations_to(path),
        }
        waiting = [("targets", None)]
        visited = []  # type: list[str]
        while waiting:
            role, delegation = waiting.pop()
            if role in visited:
                continue
            if len(visited) == _MOST_ROLES:
                raise Refused("too many delegations")
            visited.append(role)
            metadata = self._updated("targets", role, delegation, self._snapshot, wanted)
            found = metadata.signed["targets"].get(path)
            if found:
                self.sha512 = found["hashes"].get("sha512")
                return found["length"], found["hashes"].get("sha256"), found.get("custom", {})
            next_ones = []
            for child in metadata.delegated:
                next_ones.append((child["name"], metadata.delegation(child)))
                if child["terminating"]:
                    waiting = []
                    break
            waiting.extend(reversed(next_ones))
        return None

    # --- the workflow ---

    def _update_root(self):
        """§5.3: one version after the other, each signed by the one before and by itself."""
        path = self._folder + "root.json"
        root = self._root = Metadata(path, "root")
        root.check_signed(root.delegation("root"))
        for _ in range(_MOST_ROOTS):
            version = root.signed["version"] + 1
            if not self._fetch("%d.root.json" % version, _MOST_BYTES):
                break
            new = Metadata(self._folder + "new", "root")
            new.check_signed(root.delegation("root"))
            new.check_signed(new.delegation("root"))
            new.keep(path, version, "")
            root = self._root = new
        root.keep(path, None, self._now)
        self.is_consistent = root.signed.get("consistent_snapshot", False)

    def _updated(self, kind, role=None, delegation=None, named_by=None, wanted=None):
        """The role's metadata: what is held when it is what is announced and not expired, else what is fetched (§5.4 to §5.6)."""
        role = role or kind
        delegation = delegation or self._root.delegation(role)
        name = _quoted(role) + ".json"
        path = self._folder + name
        limit = _MOST_TARGETS_BYTES if kind == "targets" else _MOST_BYTES
        held = self._held(path, kind, delegation, wanted)
        announced = {}
        if named_by:
            announced = named_by.announced(role + ".json")
            limit = min(limit, announced.get("length", limit))
            if (
                held
                and held.signed["version"] == announced["version"]
                and held.signed["expires"] > self._now
                and held.is_whole(announced)
            ):
                return held
            if self.is_consistent:
                name = "%d.%s" % (announced["version"], name)
        if kind == "targets":
            held = None
        if not self._fetch(name, limit):
            raise Refused(kind + " missing")
        new = Metadata(self._folder + "new", kind, wanted)
        if not new.is_whole(announced):
            raise Refused(kind + " hash")
        new.check_signed(delegation)
        if held:
            new = new.not_older_than(held)
        new.keep(path, announced.get("version"), self._now)
        return new

    def _held(self, path, kind, delegation, wanted):
        """What was trusted before, if it still is: what fails the present keys is of no account (§5.3.11)."""
        try:
            held = Metadata(path, kind, wanted)
            held.check_signed(delegation)
            return held
        except Refused:
            return None
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
            return None


class Metadata:
    """A file that was read: `signed` is what is wanted of it. Nothing of it holds before its signatures were checked.

    Raises Refused when it is no metadata of that kind, OSError when it cannot be read.
    """

    def __init__(self, path, kind, wanted=None):
        self.path = path
        self.kind = kind
        # Until a signature is checked: what is kept shall not lie all over the heap, with what was made on the way between it.
        gc.threshold(1024)
        try:
            self._read(wanted or _WANTED[kind])
        except (ValueError, LookupError):
            raise _refused(kind + " malformed")

    def _read(self, wanted):
        wanted = dict(wanted, _type=str, spec_version=str, version=int, expires=str)
        template = {"signatures": [{"keyid": str, "sig": PLACE}], "signed": wanted}
        canonical, raw = hashlib.sha256(), hashlib.sha256()
        document = _scan(self.path, template, canonical.update, raw.update)
        self.digest, self._sha256 = canonical.digest(), raw.digest().hex()
        self.signed = signed = document["signed"]
        self.signatures = [(each["keyid"], each["sig"]) for each in document["signatures"]]
        _check(
            len({each[0] for each in self.signatures}) == len(self.signatures)
            and signed["_type"] == self.kind
            and signed["spec_version"].startswith("1.")
            and signed["version"] > 0
            and _is_time(signed["expires"])
        )
        if self.kind == "root":
            for role in _TOP_LEVEL:
                _check_role(signed["roles"][role])
        elif self.kind == "targets":
            for target in signed["targets"].values():
                _check(target["length"] >= 0 and target["hashes"])
            delegations = signed.get("delegations", {})
            _check(len(delegations) < 2)
            self.delegated = delegations.get("roles") or delegations.get("succinct_roles") or ()
        else:
            _check(signed["meta"][_NAMED[self.kind] + ".json"])

    def check_signed(self, delegation):
        """Raise Refused when fewer different keys have signed than the role's threshold asks for (§5.1)."""
        path, key_ids, threshold = delegation
        counted = []  # type: list[bytes]
        for key_id, place in self.signatures:
            if key_id in key_ids and len(counted) < threshold:
                try:
                    key = _key(path, key_id)
                    if key and key[1] not in counted:
                        signature = _value_at(self.path, place, str)
                        gc.threshold(-1)
                        gc.collect()
                        if keys.is_signed(key, signature, self.digest, self._feed):
                            counted.append(key[1])
                except (ValueError, LookupError):
                    pass  # no key, or no signature: it does not count
        if len(counted) < threshold:
            raise _refused(self.kind + " signature")

    def _feed(self, update):
        _scan(self.path, None, update)

    def not_older_than(self, held):
        """This one, or what is held if that is no older; nothing that it names may be gone or older (§5.4.3, §5.5.5)."""
        if self.kind == "timestamp":
            if self.signed["version"] < held.signed["version"]:
                raise Refused("timestamp rolled back")
            if self.signed["version"] == held.signed["version"]:
                return held
        for name, version in held.signed["meta"].items():
            if self.signed["meta"].get(name, 0) < version:
                raise Refused(_NAMED[self.kind] + " rolled back")
        return self

    def is_whole(self, announced):
        """Length and every hash fit; where there are others than SHA-256 and SHA-512 alone, none does."""
        hashes = announced.get("hashes", {"sha256": self._sha256})
        return (
            announced.get("length") in (None, os.stat(self.path)[6])
            and len(hashes) > 0
            and hashes.get("sha256", self._sha256) == self._sha256
            and ("sha512" not in hashes or hashes["sha512"] == _sha512(self.path))
        )

    def keep(self, path, version, now):
        """Of that version and not expired, it is trusted from now on, under that name."""
        if version not in (None, self.signed["version"]):
            raise Refused(self.kind + " version")
        if self.signed["expires"] <= now:
            raise Refused(self.kind + " expired")
        if self.path != path:
            os.rename(self.path, path)
            self.path = path

    def delegation(self, role):
        """By whom a role of this file is signed: (file with the keys, their ids, threshold). `role`: a name of the top level, or as delegated."""
        if role in _TOP_LEVEL:
            role = self.signed["roles"][role]
        return self.path, role["keyids"], role["threshold"]

    def announced(self, name):
        """What timestamp or snapshot says of a file."""
        try:
            return _scan(self.path, {"signed": {"meta": {name: _FILE}}})["signed"]["meta"][name]
        except (ValueError, LookupError):
            raise Refused("targets missing")


def _refused(reason):
    gc.threshold(-1)
    return Refused(reason)


def _scan(path, template, canonical=None, raw=None):
    with open(path, "rb") as file:
        return Scanner(file, canonical, raw).document(template)


def _sha512(path):
    from node.update.sha512 import Sha512

    digest = Sha512()
    _scan(path, None, None, digest.update)
    return digest.digest().hex()


def _key(path, key_id):
    """The key of that id in a trusted file; None when it cannot be used. Raises ValueError or LookupError when there is none."""
    wanted = {"keys": {key_id: PLACE}}
    signed = _scan(path, {"signed": dict(wanted, delegations=wanted)})["signed"]
    whole = hashlib.sha256()
    key = _value_at(
        path, signed.get("delegations", signed)["keys"][key_id], keys.TEMPLATE, whole.update
    )
    return keys.load(key_id, key, whole.digest())


def _value_at(path, place, template, canonical=None):
    with open(path, "rb") as file:
        return Scanner(file, canonical).value_at(place, template)


# --- shapes ---


def _check(is_right):
    if not is_right:
        raise ValueError


def _is_time(text):
    """YYYY-MM-DDTHH:MM:SSZ, which can be compared as text."""
    shape = "".join(["0" if character.isdigit() else character for character in text])
    return shape == "0000-00-00T00:00:00Z"


def _check_role(role):
    _check(role["threshold"] > 0 and len(set(role["keyids"])) == len(role["keyids"]))


def _version(file):
    _check(file["version"] > 0)
    return file["version"]


_NAMED = {"timestamp": "snapshot", "snapshot": "targets"}
_META = {"meta": {"*": ({"version": int}, _version)}}
_ROLE = {"keyids": [str], "threshold": int}
_WANTED = {
    "root": {"consistent_snapshot": bool, "roles": {"*": _ROLE}},
    "timestamp": _META,
    "snapshot": _META,
}


# --- delegations ---


def _delegations_to(path):
    """Template of the delegations that may lead to `path`."""
    digest = hashlib.sha256(path.encode()).digest().hex()

    def matching(role):
        _check_role(role)
        _check(role["name"] not in _TOP_LEVEL and "terminating" in role)
        _check(("paths" in role) != ("path_hash_prefixes" in role))
        for pattern in role.pop("paths", ()):
            if _fits(pattern, path):
                return role
        for prefix in role.pop("path_hash_prefixes", ()):
            if digest.startswith(prefix):
                return role
        return None

    def the_bin(bins):
        _check_role(bins)
        bits = bins["bit_length"]
        _check(0 < bits <= _MOST_BITS)
        number = int(digest[:8], 16) >> _MOST_BITS - bits
        bins["name"] = "%s-%0*x" % (bins["name_prefix"], (bits + 3) // 4, number)
        bins["terminating"] = True
        return [bins]

    role = dict(_ROLE, name=str, terminating=bool, paths=[str], path_hash_prefixes=[str])
    bins = dict(_ROLE, name_prefix=str, bit_length=int)
    return {"roles": [(role, matching)], "succinct_roles": (bins, the_bin)}


def _fits(pattern, path):
    """Whether a path fits a pattern in which `*` and `?` stand for anything but `/` (§4.5)."""
    at = wanted = begin = 0
    star = -1
    while at < len(path):
        sign = pattern[wanted : wanted + 1]
        if sign == "*":
            star, begin = wanted, at
            wanted += 1
        elif sign == path[at] or (sign == "?" and path[at] != "/"):
            at += 1
            wanted += 1
        elif star >= 0 and path[begin] != "/":
            # The last star takes one more: an earlier one need not, what comes before a `/` has fitted.
            begin += 1
            at, wanted = begin, star + 1
        else:
            return False
    return not pattern[wanted:].strip("*")


def _quoted(role):
    """A role's name as a name of a file and in a URL (RFC 3986 §2.3)."""
    quoted = ""
    for byte in role.encode():
        sign = chr(byte)
        is_plain = sign.isalpha() or sign.isdigit() or sign in "_.-~"  # of ASCII alone
        quoted += sign if is_plain else "%%%02X" % byte
    return quoted
