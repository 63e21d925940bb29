"""An update on the real virtual machine: signed, fetched, tried, confirmed or left again, whatever happens in between."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import cbor2
import nodes
import pytest
from authority import TestAuthority
from budgets import budget
from scripted_broker import ScriptedBroker
from scripted_listener import Mirror, ScriptedListener, packed
from signed_releases import SignedReleases, bundle_sha256, manifest

from fleet_server.wire.desired import DesiredState, encode_desired
from fleet_server.wire.state_message import NodeStateMessage, decode_state
from fleet_server.wire.states import SlotReason
from fleet_server.wire.updates import Assignment
from hardware.paths import firmware_dir
from hardware.virtual_board.board import HEAP_BYTES, Board, WakeResult
from hardware.virtual_board.flash import PowerCutPlan
from hardware.virtual_board.network import NetworkPolicy
from provisioning.firmware_bundle import FirmwareBundle, compile_module

NOW = datetime.fromtimestamp(nodes.START_US // 1_000_000, UTC)


@dataclass
class Place:
    """A node in the field, its broker, the fleet's listener, and what is released."""

    board: Board
    broker: ScriptedBroker
    listener: ScriptedListener
    releases: SignedReleases

    def release(self, bundle: FirmwareBundle, counter: int, **changes: object) -> str:
        target = self.releases.add(bundle, counter, **changes)
        self.releases.publish()
        self.listener.files = self.releases.files
        return target

    def assign(self, target: str, counter: int, assignment: int = 1, attempt: int = 1) -> None:
        wanted = Assignment(assignment, attempt, target, counter)
        self.broker.behaviour.desired = encode_desired(
            DesiredState(1, {}, release=wanted.as_fields())
        )

    def trust(self, releases: SignedReleases) -> None:
        """Let the node trust other keys."""
        self.releases = releases
        self.board.write_file("/tuf/root.json", releases.first_root)

    def wakes(self, count: int, *, any_end: bool = False) -> None:
        for _ in range(count):
            result = self.board.run_wake()
            ends = f"{result.reason} {result.error}\n{result.stdout}"
            assert any_end or result.reason == "deepsleep", ends

    def is_rebooting(self) -> bool:
        """True once the node's record of slots names the new one."""
        printed = self.board.exec("import slots\nprint(slots.select().state)")
        return printed.strip() == "trial"

    def wakes_until_told(self, step: str) -> None:
        for _ in range(12):
            self.wakes(1)
            if self.steps()[-1:] == [step]:
                return
        raise AssertionError(f"{step} was not told, but {self.steps()}")

    def is_session_next(self) -> bool:
        """True once the node knows of its job and begins with it in the next wake."""
        code = "from node import rtc_memory\nprint(rtc_memory.load().update)"
        return nodes.run_on(self.board, code) == ["1"]

    def needed(self, bundle: FirmwareBundle) -> int:
        """Bytes of the files that have changed, and of the metadata and the manifest that were asked for."""
        files, old = self.listener.files, nodes.bundle().slot_files
        signed = [path for path in set(self.listener.asked) if "bundles" not in path]
        changed = [data for name, data in bundle.slot_files.items() if data != old[name]]
        return sum(len(files.get(path, b"")) for path in signed) + sum(map(len, changed))

    def metadata_asked(self) -> list[str]:
        return [path for path in self.listener.asked if path.startswith("metadata/")]

    def nothing_is_missing(self) -> bool:
        """True when every sequence up to the receipt has come."""
        return all(
            set(range(1, receipt + 1)) <= self.broker._held[spool]
            for spool, receipt in self.broker.receipts.items()
        )

    def state(self) -> NodeStateMessage:
        return decode_state(self.broker.payloads("st")[-1])

    def steps(self) -> list[str]:
        """What the node told of its updates, as `stage` or `stage: reason`, in the order of their sequences."""
        told = {}
        for payload in self.broker.payloads("ev"):
            records = {record[0]: record.get(2, record.get(3)) for record in cbor2.loads(payload)}
            if records.get("_event") == "update":
                reason = records.get("reason")
                told[records["_seq"]] = records["stage"] + (f": {reason}" if reason else "")
        return [told[seq] for seq in sorted(told)]


def place_of(folder: Path, authority: TestAuthority) -> Iterator[Place]:
    pair = authority.issue("localhost")
    broker = ScriptedBroker(authority.server_context(pair, folder))
    listener = ScriptedListener(authority.listener_context(pair, folder))
    releases = SignedReleases(NOW)
    board = nodes.make_board(
        folder / "node",
        nodes.soil(),
        node=nodes.tree_3(),
        port=broker.port,
        link={"tls": True, "renew": ["127.0.0.1", listener.port, "localhost"]},
        identity=authority.identity(nodes.NODE_ID),
    )
    board.write_file("/tuf/root.json", releases.first_root)
    yield Place(board, broker, listener, releases)
    broker.close()
    listener.close()


@pytest.fixture
def place(tmp_path: Path, authority: TestAuthority) -> Iterator[Place]:
    yield from place_of(tmp_path, authority)


def compiled(path: str, changes: list[tuple[str, str]], scratch: Path) -> bytes:
    """One of our modules with some places of it written otherwise."""
    source = (firmware_dir() / path).read_text()
    for old, new in changes:
        assert source.count(old) == 1, f"{path} holds {source.count(old)} times: {old}"
        source = source.replace(old, new)
    changed = scratch / "module.py"
    changed.write_text(source)
    return compile_module(changed, name=path)


def patched(version: str, path: str, old: str, new: str, folder: Path) -> FirmwareBundle:
    """Our firmware as another version, with one place of one module written otherwise."""
    name = path.replace(".py", ".mpy")
    changed = {**nodes.bundle().slot_files, name: compiled(path, [(old, new)], folder)}
    return replace(nodes.bundle(), version=version, slot_files=changed)


def another(version: str, *, files: int = 3) -> FirmwareBundle:
    """Our firmware as another version, of which so many files have to be fetched."""
    bundle = nodes.bundle()
    names = sorted(bundle.slot_files)[:: max(1, len(bundle.slot_files) // files)][:files]
    # MicroPython passes over what follows a module.
    longer = {name: bundle.slot_files[name] + b"\0" for name in names}
    return replace(bundle, version=version, slot_files={**bundle.slot_files, **longer})


WHOLE_UPDATE = ["accepted", "downloading", "verified", "installing", "rebooting", "testing"]


def test_a_signed_release_is_fetched_tried_and_confirmed_by_two_receipts_with_a_sleep_between(
    place: Place,
) -> None:
    bundle = another("1.2.4")
    place.assign(place.release(bundle, 7), 7)

    place.wakes(6)

    assert place.steps() == WHOLE_UPDATE
    said = place.state()
    assert (said.version, said.slot, said.slot_state) == ("1.2.4", "b", "confirmed")
    assert (said.counter, said.assignment, said.attempt) == (7, 1, 1)
    assert said.bundle_sha256 == bundle_sha256(manifest(bundle, 7))
    assert len(set(place.metadata_asked())) == len(place.metadata_asked())
    # It is also the one that is not tried again.
    place.wakes(4)
    assert place.steps() == WHOLE_UPDATE


ON_THE_AIR = {
    ("ecdsa", 1): "bytes of an update, 1 file changed, P-256",
    ("ecdsa", 3): "… 3 files, P-256",
    ("rsa", 3): "… 3 files, RSA-3072",
    ("ed25519", 12): "… 12 files, Ed25519",
    ("ecdsa", 200): "… all files, P-256",
}
ALL_ON_THE_AIR = [
    (scheme, files) for scheme in ("rsa", "ecdsa", "ed25519") for files in (1, 3, 12, 200)
]


@pytest.mark.parametrize(
    ("scheme", "files"),
    [
        pytest.param(*case, marks=[] if case in ON_THE_AIR else [pytest.mark.nightly])
        for case in ALL_ON_THE_AIR
    ],
)
def test_an_update_takes_at_most_a_fifth_more_over_the_air_than_what_has_changed_and_what_signs_it(
    place: Place, scheme: str, files: int
) -> None:
    """Everything in both directions, TLS and its handshake included."""
    place.trust(SignedReleases(NOW, scheme))
    bundle = another("1.2.4", files=files)
    place.assign(place.release(bundle, 7), 7)

    place.wakes(6)

    assert place.state().version == "1.2.4"
    share = place.listener.wire_bytes / place.needed(bundle)
    assert share <= 1.2
    if (row := ON_THE_AIR.get((scheme, files))) is not None:
        assert 100 * share == pytest.approx(budget(row), abs=5)


def test_from_a_mirror_that_only_has_files_an_update_comes_all_the_same(place: Place) -> None:
    place.listener.mirror = Mirror(has_packed=False)
    bundle = another("1.2.4", files=12)
    place.assign(place.release(bundle, 7), 7)

    place.wakes(6)

    assert place.state().version == "1.2.4"
    assert place.listener.body_bytes == place.needed(bundle), "nothing came twice"


GOOD_NEWS = packed(b"metadata/2.root.json 0\ntimestamp.json 4\nwhatx/y.cbor 3\nthe")
UNREADABLE_NEWS = {
    "cut off": GOOD_NEWS[:-9],
    "not packed": b"\xff" * 100,
    "broken in its middle": GOOD_NEWS[:20] + bytes(range(200)),
    "nothing": b"",
    "no name": packed(b"metadata/ 4\nevil"),
    "a folder": packed(b"x/.. 4\nevil"),
    "no length": packed(b"timestamp.json\n"),
    "a length that is none": packed(b"timestamp.json -4\nevil"),
    "too short": packed(b"timestamp.json 9\nshort"),
    "no line": packed(b"x" * 1000),
    "too many": packed(b"".join(b"%d 0\n" % n for n in range(99))),
}
TAKE_NEWS = """
import os
from node.update import news
class Fetcher:
    def __init__(self, data):
        self.data, self.is_closed = data, False
    def packed(self, name, limit):
        self.name = name
        return (memoryview(self.data)[at:at + 7] for at in range(0, len(self.data), 7))
    def close(self):
        self.is_closed = True
for data in {all!r}:
    fetcher = Fetcher(data)
    news.fetch(fetcher, 'tree-3/1.2.4.cbor')
    try:
        there = sorted([(e[0], e[3]) for e in os.ilistdir('/tuf/news')])
    except OSError:
        there = []
    print(there, fetcher.is_closed, fetcher.name)
"""


def test_news_that_cannot_be_read_are_passed_over_whole(tmp_path: Path) -> None:
    """What is not there is asked for alone, as from a mirror that only has files."""
    board = nodes.flashed_board(tmp_path / "node", nodes.soil())
    code = TAKE_NEWS.replace("{all!r}", repr([GOOD_NEWS, *UNREADABLE_NEWS.values()]))

    good, *others = nodes.run_on(board, code)

    asked = "news/0.0.0.0.-/tree-3/1.2.4.cbor"
    files = [("2.root.json", 0), ("timestamp.json", 4), ("y.cbor", 3)]
    assert good == f"{files} False {asked}"
    for what, said in zip(UNREADABLE_NEWS, others, strict=True):
        assert said == f"[] True {asked}", what


@pytest.mark.parametrize("scheme", ["rsa", "ecdsa", "ed25519"])
def test_at_its_worst_moment_an_update_leaves_30_kb_of_the_heap(place: Place, scheme: str) -> None:
    place.trust(SignedReleases(NOW, scheme))
    place.assign(place.release(another("1.2.4", files=30), 7), 7)
    while not place.is_session_next():
        place.wakes(1)

    place.board.heap_bytes = HEAP_BYTES - 30_000
    place.wakes(1)

    assert place.is_rebooting(), "the session ended before the new version was installed"


def test_a_download_that_breaks_off_goes_on_where_it_was(place: Place) -> None:
    bundle = another("1.2.4", files=200)
    place.assign(place.release(bundle, 7), 7)
    size = bundle.slot_size_bytes
    for share in (0.2, 0.5, 0.8, 2):
        place.listener.mirror = Mirror(hang_up_after=int(size * share), piece_bytes=700)
        place.wakes(2)
    place.listener.mirror = Mirror()

    place.wakes(8)

    assert place.state().version == "1.2.4"
    assert place.listener.body_bytes < 1.3 * size, "what had come was not fetched again"


@dataclass(frozen=True)
class Bad:
    """A release that is signed and should never have been, by what is wrong in it, and what is told when it was left."""

    name: str
    path: str
    old: str
    new: str
    reason: SlotReason


BAD_RELEASES = (
    Bad(
        "crashes at import",
        "node/cycle.py",
        "import machine\n",
        "import machine\nimport nothing\n",
        SlotReason.CRASHED,
    ),
    Bad(
        "has no memory for one of its modules",
        "node/senml.py",
        '"""Packs',
        'raise MemoryError\n"""Packs',
        SlotReason.CRASHED,
    ),
    Bad(
        "cannot publish",
        "node/link/exchange.py",
        'self._topic("up", senml.kind(body))',
        'self._topic("up", "xx")',
        SlotReason.NO_RECEIPT,
    ),
    Bad(
        "fails at a step of every wake",
        "node/waking.py",
        "    node = wake.config.node\n    probes",
        "    node = wake.config.nothing\n    probes",
        SlotReason.CRASHED,
    ),
    Bad(
        "eats the heap",
        "node/cycle.py",
        "    wake.guard(Wake.open_spool)",
        "    wake.rest = [bytearray(1000) for _ in range(100)]\n    wake.guard(Wake.open_spool)",
        SlotReason.CRASHED,
    ),
    Bad(
        "never sleeps",
        "node/cycle.py",
        "    wake.guard(Wake.open_spool)",
        "    while True:\n        Deadline(60000).sleep(5000)\n    wake.guard(Wake.open_spool)",
        SlotReason.HUNG,
    ),
    Bad(
        "hangs",
        "node/cycle.py",
        "    wake.guard(Wake.open_spool)",
        "    while True:\n        pass\n    wake.guard(Wake.open_spool)",
        SlotReason.HUNG,
    ),
    Bad(
        "breaks the clock",
        "node/clock.py",
        "        return uptime_ms + state.offset_ms - fast_ms",
        "        return uptime_ms + state.offset_ms - fast_ms + 7200000",
        SlotReason.WRONG_CLOCK,
    ),
)


def _in_time(bad: Bad) -> object:
    """A loop without end is found after ten seconds of computing, three times."""
    marks = [pytest.mark.nightly] if bad.name == "hangs" else []
    return pytest.param(bad, marks=marks, id=bad.name)


@pytest.mark.parametrize("bad", [_in_time(bad) for bad in BAD_RELEASES])
def test_a_bad_release_gives_way_within_three_counted_wakes_and_says_why(
    place: Place, tmp_path: Path, bad: Bad
) -> None:
    bundle = patched("1.2.4", bad.path, bad.old, bad.new, tmp_path)
    place.assign(place.release(bundle, 7), 7)
    while not place.is_rebooting():
        place.wakes(1)

    place.wakes(3, any_end=True)
    place.wakes(3)

    said = place.state()
    assert (said.version, said.slot, said.slot_state) == ("1.2.3", "a", "confirmed")
    assert place.steps()[-1] == f"rolled_back: {bad.reason}"
    assert place.nothing_is_missing()


@pytest.mark.parametrize("wakes", [24, pytest.param(96, marks=pytest.mark.nightly)])
def test_hours_without_a_broker_do_not_take_a_good_release_back(place: Place, wakes: int) -> None:
    """96 are a day; test_slots.py has the whole of it without a network."""
    place.assign(place.release(another("1.2.4"), 7), 7)
    while not place.is_rebooting():
        place.wakes(1)
    place.wakes(1)
    place.board.network_policy = NetworkPolicy(tcp="refused")

    place.wakes(wakes)
    place.board.network_policy = NetworkPolicy()
    place.wakes(12)

    assert (place.state().slot, place.state().slot_state) == ("b", "confirmed")
    assert place.steps() == WHOLE_UPDATE


# --- losses of power ---


@dataclass
class Moment:
    """A board as it was, to begin from there again and again."""

    place: Place
    kept: Path
    published: int

    @classmethod
    def of(cls, place: Place, kept: Path) -> Moment:
        shutil.copytree(place.board.folder, kept)
        return cls(place, kept, len(place.broker.published))

    def again(self) -> Board:
        board = self.place.board
        shutil.rmtree(board.folder)
        shutil.copytree(self.kept, board.folder)
        self.place.broker.forget(after=self.published)
        again = Board(board.folder, nodes.soil())
        self.place.board = again
        return again


def _operations(result: WakeResult) -> int:
    return result.flash.programs + result.flash.erases


def _cuts(operations: int, wanted: int) -> list[int]:
    """So many of the operations, the first and the last among them."""
    step = max(1, operations // wanted)
    return sorted({1, *range(1, operations + 1, step), operations})


def lose_power_in_a_wake_from(moment: Moment, wanted: int) -> Iterator[Place]:
    """The node after a loss of power at one flash operation of its next wake, and then at another."""
    operations = _operations(moment.again().run_wake())
    for at in _cuts(operations, wanted):
        board = moment.again()
        board.power_cut = PowerCutPlan(at_operation=at, torn=at % 2 == 1)
        assert board.run_wake().reason == "power_cut", at
        board.power_on(at_utc_us=board.now_us + 60_000_000)
        yield moment.place


def _ends_well(place: Place, slot: str, last: str) -> None:
    for _ in range(16):
        place.wakes(1)
        if place.steps()[-1:] == [last] and place.state().slot_state == "confirmed":
            break
    said = place.state()
    assert (said.slot, said.slot_state, place.steps()[-1]) == (slot, "confirmed", last)
    # A version that crashes at its first line says nothing of itself.
    own = set() if slot == "b" else {"testing"}
    assert set(WHOLE_UPDATE) - own <= set(place.steps())


def _a_loss_of_power_in_every_wake_of_an_update(
    place: Place, scratch: Path, bundle: FirmwareBundle, wanted: int, slot: str, last: str
) -> None:
    place.assign(place.release(bundle, 7), 7)
    while not place.is_session_next():
        place.wakes(1)
    for number in range(5 if slot == "a" else 4):
        moment = Moment.of(place, scratch / f"moment-{number}")
        for cut in lose_power_in_a_wake_from(moment, wanted):
            _ends_well(cut, slot, last)
        moment.again()
        place.wakes(1, any_end=True)


def test_a_loss_of_power_anywhere_in_an_update_leaves_a_node_that_ends_it(
    place: Place, tmp_path: Path
) -> None:
    _a_loss_of_power_in_every_wake_of_an_update(
        place, tmp_path, another("1.2.4"), 2, "b", "testing"
    )


@pytest.mark.nightly
@pytest.mark.timeout(4 * 3600)
@pytest.mark.parametrize("slot", ["a", "b"])
def test_a_loss_of_power_at_every_flash_operation_of_an_update_leaves_a_node_that_ends_it(
    place: Place, tmp_path: Path, slot: str
) -> None:
    good = another("1.2.4", files=6)
    bad = BAD_RELEASES[0]
    bundle = good if slot == "b" else patched("1.2.4", bad.path, bad.old, bad.new, tmp_path)
    last = "testing" if slot == "b" else f"rolled_back: {bad.reason}"

    _a_loss_of_power_in_every_wake_of_an_update(place, tmp_path, bundle, 10_000, slot, last)
