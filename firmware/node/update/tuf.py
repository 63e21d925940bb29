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

from node.errors import Refused
from node.update import keys
from node.update.metadata import PLACE, Scanner

_UNIX_TO_RTC_S = const(946_684_800)  # an ESP32 counts from 2000-01-01
_MOST_ROOTS = const(32)  # in one run; the next goes on from there
_MOST_ROLES = const(32)
_MOST_BITS = const(32)
_MOST_NAME = const(160)
_CHUNK = const(256)
_TOP_LEVEL = ("root", "timestamp", "snapshot", "targets")
# The most bytes of a file. The file system has 960 KB, and an old and a new one are there at a time.
_MOST_BYTES = {"root": 32_768, "timestamp": 8_192, "snapshot": 32_768, "targets": 131_072}
_HASHES = {"sha256": True, "sha512": True}
_PLAIN = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-~"


class Client:
    """What a node trusts of a repository, in a folder.

    `fetch(name, limit)` gets the metadata file `name` (quoted for a URL) into `new` in the folder: True, or False when the repository has
    none. It raises OSError or LinkError for the network, and Refused("endless data") above `limit` bytes. `now_s`: UTC, fixed for the run.
    """

    def __init__(self, folder, fetch, now_s):
        self._folder = folder + "/"
        self._fetch = fetch
        self._now = "%04d-%02d-%02dT%02d:%02d:%02dZ" % time.gmtime(now_s - _UNIX_TO_RTC_S)[:6]
        self.is_consistent = False
        self.sha512 = None

    def refresh(self):
        """Bring root, timestamp, snapshot and targets up to date (§5.3 to §5.6). Raises Refused, and what `fetch` raises."""
        self._update_root()
        timestamp = self._updated("timestamp")
        self._snapshot = self._updated("snapshot", announced=timestamp.announced("snapshot"))
        self._targets("targets", None, {"targets": {}})

    def target(self, path):
        """(length, SHA-256 in hex, custom) of a target, or None when no role names it (§5.6.7). After `refresh`.

        `sha512`: its SHA-512, or None. Roles that delegations lead to are fetched, and verified by the keys of whoever delegates now.
        """
        wanted = {
            "targets": {path: {"length": True, "hashes": _HASHES, "custom": True}},
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
            signed = self._targets(role, delegation, wanted)
            if path in signed["targets"]:
                return self._told(signed["targets"][path])
            next_ones = []
            for delegation, is_last in signed["delegated"]:
                next_ones.append((delegation[0], delegation))
                if is_last:
                    waiting = []
                    break
            waiting.extend(reversed(next_ones))
        return None

    def _told(self, target):
        custom = target.get("custom", {})
        self.sha512 = target["hashes"].get("sha512")
        return target["length"], target["hashes"]["sha256"], custom

    # --- the workflow ---

    def _update_root(self):
        """§5.3: one version after the other, each signed by the one before and by itself."""
        path = self._folder + "root.json"
        self._root = root = Metadata(path, "root")
        root.check_signatures(root.delegation("root"))
        for _ in range(_MOST_ROOTS):
            version = root.signed["version"] + 1
            if not self._fetch("%d.root.json" % version, _MOST_BYTES["root"]):
                break
            new = Metadata(self._folder + "new", "root")
            new.check_signatures(root.delegation("root"))
            new.check_signatures(new.delegation("root"))
            new.check_version(version)
            new.keep(path)
            self._root = root = new
        root.check_fresh(self._now)
        self.is_consistent = root.signed["consistent_snapshot"]

    def _updated(self, kind, role=None, delegation=None, announced=None, wanted=None):
        """The role's metadata: what is held when it is the announced and not expired, else what is fetched (§5.4 to §5.6)."""
        delegation = delegation or self._root.delegation(kind)
        name = _quoted(role or kind) + ".json"
        path = self._folder + name
        limit = _MOST_BYTES[kind]
        held = self._held(path, kind, delegation, wanted)
        if announced:
            if held and held.is_announced(announced) and held.signed["expires"] > self._now:
                return held
            limit = min(limit, announced.get("length", limit))
            if self.is_consistent:
                name = "%d.%s" % (announced["version"], name)
        if not self._fetch(name, limit):
            raise Refused(kind + " missing")
        new = Metadata(self._folder + "new", kind, wanted, announced)
        new.check_signatures(delegation)
        if announced:
            new.check_version(announced["version"])
        if held and kind != "targets":
            new = new.not_older_than(held)
        new.check_fresh(self._now)
        new.keep(path)
        return new

    def _held(self, path, kind, delegation, wanted):
        """What was trusted before, if it still is: what fails the present keys is of no account (§5.3.11)."""
        try:
            held = Metadata(path, kind, wanted)
            held.check_signatures(delegation)
            return held
        except Refused:
            return None
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
            return None

    def _targets(self, role, delegation, wanted):
        return self._updated(
            "targets", role, delegation, self._snapshot.announced(role), wanted
        ).signed


class Metadata:
    """A file that was read: `signed` is what is wanted of it. Nothing of it holds before its signatures were checked.

    `announced`: length and hashes that it must have. Raises Refused when it is no metadata of that kind, OSError when it cannot be read.
    """

    def __init__(self, path, kind, wanted=None, announced=None):
        self._path = path
        self._kind = kind
        self._size = 0
        self._raw = hashlib.sha256()
        try:
            self._read(wanted or _WANTED[kind])
        except (ValueError, LookupError, TypeError, AttributeError):
            raise Refused(kind + " malformed")
        self._sha256 = keys.hexlify(self._raw.digest())
        if announced and not self._is_whole(announced):
            raise Refused(kind + " hash")

    def _read(self, wanted):
        gc.collect()
        wanted = dict(wanted, _type=True, spec_version=True, version=True, expires=True)
        template = {"signatures": [{"keyid": True, "sig": PLACE}], "signed": wanted}
        canonical = hashlib.sha256()
        with open(self._path, "rb") as file:
            document = Scanner(file, canonical.update, self._count).document(template)
        self._digest = canonical.digest()
        self.signed = signed = document["signed"]
        self._signatures = [(each["keyid"], each["sig"]) for each in document["signatures"]]
        _check(_are_different([each[0] for each in self._signatures]))
        _check(signed["_type"] == self._kind and signed["spec_version"].startswith("1."))
        _check(_is_count(signed["version"], 1) and _is_time(signed["expires"]))
        if self._kind == "root":
            _check(isinstance(signed.setdefault("consistent_snapshot", False), bool))
            for role in _TOP_LEVEL:
                _check_role(signed["roles"][role])
        elif self._kind == "targets":
            self._read_targets(signed)
        elif self._kind == "timestamp":
            _check("snapshot.json" in signed["meta"])

    def _read_targets(self, signed):
        for target in signed["targets"].values():
            _check(_is_count(target["length"], 0) and isinstance(target["hashes"]["sha256"], str))
            _check(isinstance(target.get("custom", {}), dict))
        delegations = signed.get("delegations", {})
        _check(len(delegations) < 2)
        roles = delegations.get("roles", [])
        if "succinct_roles" in delegations:
            roles = [delegations["succinct_roles"]]
        signed["delegated"] = [((role[0], self._path) + role[1:3], role[3]) for role in roles]

    def _count(self, data):
        self._size += len(data)
        self._raw.update(data)

    def check_signatures(self, delegation):
        """Raise Refused when fewer different keys have signed than the role's threshold asks for (§5.1)."""
        _, path, key_ids, threshold = delegation
        counted = []  # type: list[bytes]
        for key_id, place in self._signatures:
            if key_id in key_ids and len(counted) < threshold:
                gc.collect()
                key = _key(path, key_id)
                if key and key[1] not in counted:
                    with open(self._path, "rb") as file:
                        file.seek(place)
                        signature = Scanner(file).value(True)
                    gc.collect()
                    if keys.is_signed(key, signature, self._digest, self._feed):
                        counted.append(key[1])
        if len(counted) < threshold:
            raise Refused(self._kind + " signature")

    def _feed(self, update):
        with open(self._path, "rb") as file:
            Scanner(file, update).document(None)

    def check_version(self, version):
        if self.signed["version"] != version:
            raise Refused(self._kind + " version")

    def check_fresh(self, now):
        if self.signed["expires"] <= now:
            raise Refused(self._kind + " expired")

    def not_older_than(self, held):
        """This one, or what is held if that is no older; nothing that it names may be gone or older (§5.4.3, §5.5.5)."""
        if self._kind == "timestamp":
            if self.signed["version"] < held.signed["version"]:
                raise Refused("timestamp rolled back")
            if self.signed["version"] == held.signed["version"]:
                return held
        for name, version in held.signed["meta"].items():
            if self.signed["meta"].get(name, 0) < version:
                raise Refused(_NAMED[self._kind] + " rolled back")
        return self

    def is_announced(self, announced):
        """Whether this is that version, whole."""
        return self.signed["version"] == announced["version"] and self._is_whole(announced)

    def _is_whole(self, announced):
        """Length and every hash fit; where there are others than SHA-256 and SHA-512 alone, none does."""
        if self._size != announced.get("length", self._size):
            return False
        hashes = announced.get("hashes", {"sha256": self._sha256})
        if "sha512" in hashes and hashes["sha512"] != sha512_of(self._path):
            return False
        return len(hashes) > 0 and hashes.get("sha256", self._sha256) == self._sha256

    def keep(self, path):
        """It is trusted from now on, under that name."""
        if self._path != path:
            os.rename(self._path, path)
            self._path = path

    def delegation(self, role):
        """By whom a top-level role is signed: (role, file with the keys, their ids, threshold)."""
        given = self.signed["roles"][role]
        return role, self._path, given["keyids"], given["threshold"]

    def announced(self, role):
        """What timestamp or snapshot says of a role's file."""
        name = role + ".json"
        wanted = {"version": True, "length": True, "hashes": _HASHES}
        try:
            return _scan(self._path, {"signed": {"meta": {name: wanted}}})["signed"]["meta"][name]
        except LookupError:
            raise Refused("targets missing")


def sha512_of(path):
    """SHA-512 of a file, in hex."""
    from node.update.sha512 import Sha512

    digest = Sha512()
    with open(path, "rb") as file:
        while True:
            chunk = file.read(_CHUNK)
            if not chunk:
                return keys.hexlify(digest.digest())
            digest.update(chunk)


def _scan(path, template):
    with open(path, "rb") as file:
        return Scanner(file).document(template)


def _key(path, key_id):
    """The key of that id in a trusted file; None when there is none that can be used."""
    wanted = {"keys": {key_id: keys.TEMPLATE}}
    signed = _scan(path, {"signed": {"keys": wanted["keys"], "delegations": wanted}})["signed"]
    try:
        return keys.load(key_id, signed.get("delegations", signed)["keys"][key_id])
    except LookupError:
        return None


# --- shapes ---


def _check(is_right):
    if not is_right:
        raise ValueError


def _is_count(number, least):
    return type(number) is int and number >= least


def _are_different(texts):
    return len(set(texts)) == len(texts)


def _is_time(text):
    """YYYY-MM-DDTHH:MM:SSZ, which can be compared as text."""
    shape = "".join(["0" if character in "0123456789" else character for character in text])
    return (
        shape == "0000-00-00T00:00:00Z"
        and "00" < text[5:7] < "13"
        and "00" < text[8:10] < "32"
        and text[11:13] < "24"
        and text[14:16] < "60"
        and text[17:19] < "60"
    )


def _check_role(role):
    _check(_is_count(role["threshold"], 1) and _are_different(role["keyids"]))


def _version(file):
    _check(_is_count(file["version"], 1) and _is_count(file.get("length", 1), 1))
    return file["version"]


_META = {"meta": {"*": ({"version": True, "length": True}, _version)}}
_NAMED = {"timestamp": "snapshot", "snapshot": "targets"}
_WANTED = {
    "root": {"consistent_snapshot": True, "roles": {"*": {"keyids": [True], "threshold": True}}},
    "timestamp": _META,
    "snapshot": _META,
}


# --- delegations ---


def _delegations_to(path):
    """Template of the delegations that may lead to `path`: (role, key ids, threshold, whether those after it do not count)."""
    digest = keys.hexlify(hashlib.sha256(path.encode()).digest())

    def matching(role):
        _check_role(role)
        name, is_last = role["name"], role["terminating"]
        _check(name not in _TOP_LEVEL and isinstance(is_last, bool))
        _check(("paths" in role) != ("path_hash_prefixes" in role))
        if not any([_fits(pattern, path) for pattern in role.get("paths", [])]) and not any(
            [digest.startswith(prefix) for prefix in role.get("path_hash_prefixes", [])]
        ):
            return None
        return name, role["keyids"], role["threshold"], is_last

    def the_bin(bins):
        _check_role(bins)
        bits = bins["bit_length"]
        _check(_is_count(bits, 1) and bits <= _MOST_BITS)
        number = int(digest[:8], 16) >> _MOST_BITS - bits
        name = "%s-%0*x" % (bins["name_prefix"], (bits + 3) // 4, number)
        return name, bins["keyids"], bins["threshold"], True

    return {"roles": [(True, matching)], "succinct_roles": (True, the_bin)}


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
    return pattern[wanted:].strip("*") == ""


def _quoted(role):
    """A role's name as a name of a file and in a URL (RFC 3986 §2.3)."""
    quoted = "".join([chr(byte) if byte in _PLAIN else "%%%02X" % byte for byte in role.encode()])
    if len(quoted) > _MOST_NAME:
        raise Refused("targets malformed")
    return quoted
