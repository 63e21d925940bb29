"""The MicroPython machine itself: repaired, limited, many at once."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
import time

import pytest
import wasmtime

from hardware.virtual_board import vm_module
from hardware.virtual_board.vm import EndlessLoop, GuestTrap, Vm

# Allocates under constant collection; every line's result is known.
GC_GATE = """
import gc, json, hashlib, binascii
gc.threshold(32)
class Tree:
    def __init__(self, depth):
        self.left = Tree(depth - 1) if depth else None
        self.right = Tree(depth - 1) if depth else None
    def count(self):
        return 1 + (self.left.count() + self.right.count() if self.left else 0)
print(sum(Tree(6).count() for _ in range(8)))
table = {}
for i in range(3000):
    table["k%d" % i] = i * i
print(len(table), sum(table.values()))
del table
text = json.dumps([{"n": i, "s": "x" * (i % 17), "l": [i, None, True]} for i in range(60)])
print(len(text), json.loads(text)[59]["l"])
modulus = (1 << 3072) - 1103717
print(pow(0xABCDEF, 65537, modulus) % 1000000007)
digest = hashlib.sha256()
for i in range(200):
    digest.update(bytes([i]) * i)
print(binascii.hexlify(digest.digest()).decode())
"""


def _expected_of_gate() -> list[str]:
    table = sum(i * i for i in range(3000))
    digest = hashlib.sha256(b"".join(bytes([i]) * i for i in range(200))).hexdigest()
    power = pow(0xABCDEF, 65537, (1 << 3072) - 1103717) % 1000000007
    return [str(8 * 127), f"3000 {table}", "[59, None, True]", str(power), digest]


class _Bare:
    """A machine with nothing around it but a console and the computer's clock."""

    def __init__(self) -> None:
        self.printed = b""

    def console(self, data: bytes) -> None:
        self.printed += data

    def stat(self, path: str) -> tuple[bool, int]:
        raise OSError(2, path)

    open = stat

    def realtime_ns(self) -> int:
        return time.time_ns()

    monotonic_ns = realtime_ns

    def run(self, code: str, *, heap: str = "400K", module: wasmtime.Module | None = None) -> int:
        vm = Vm(files=self, clock=self, operations={}, module=module)  # type: ignore[arg-type]
        return vm.run(arguments=["micropython", "-X", f"heapsize={heap}", "-c", code])


def test_collections_under_load_leave_every_result_right() -> None:
    bare = _Bare()

    assert bare.run(GC_GATE) == 0

    lines = bare.printed.decode().split("\n")
    lines[2] = lines[2].split(" ", 1)[1]
    assert lines[:5] == _expected_of_gate()


def test_the_module_as_shipped_fails_the_same_program() -> None:
    shipped = wasmtime.Module(vm_module.engine(), vm_module.shipped_module())

    with pytest.raises(GuestTrap):
        _Bare().run(GC_GATE, module=shipped)


def test_a_program_larger_than_the_heap_gets_a_memory_error() -> None:
    bare = _Bare()
    code = (
        "try:\n    bytearray(90000)\n    bytearray(90000)\nexcept MemoryError:\n    print('full')"
    )

    bare.run(code, heap="100K")

    assert bare.printed == b"full\n"


def test_endless_recursion_is_an_exception_of_the_guest() -> None:
    bare = _Bare()

    bare.run("def f(): return f()\ntry:\n    f()\nexcept RuntimeError as e:\n    print(e)")

    assert b"recursion" in bare.printed


def test_recursion_is_as_deep_as_on_a_board_but_no_deeper() -> None:
    # An ESP32's 16 KiB task stack ends ordinary recursion between some 20 and some 200 calls.
    bare = _Bare()
    code = """
def f(n):
    try:
        return f(n + 1)
    except RuntimeError:
        return n
print(f(0))
"""
    bare.run(code)

    assert 20 < int(bare.printed) < 400


def test_an_endless_loop_without_any_host_call_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hardware.virtual_board.vm.ENDLESS_LOOP_S", 0.3)

    with pytest.raises(EndlessLoop):
        _Bare().run("while True: pass")


def test_an_exception_of_the_host_ends_only_its_own_machine() -> None:
    class Unplugged(Exception):
        pass

    class Fragile(_Bare):
        def console(self, data: bytes) -> None:
            if b"boom" in data:
                raise Unplugged(threading.current_thread().name)
            super().console(data)

    outcomes: dict[str, object] = {}

    def work(name: str) -> None:
        bare = Fragile()
        try:
            for number in range(30):
                bare.run(f"print({number})")
            bare.run("print('boom')" if name == "a" else "print('fine')")
        except Unplugged as error:
            outcomes[name] = str(error)
        else:
            outcomes[name] = bare.printed.count(b"\n")

    threads = [threading.Thread(target=work, args=(name,), name=name) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert outcomes == {"a": "a", "b": 31}


def test_the_naming_section_is_what_the_repair_was_measured_with() -> None:
    named = vm_module.with_named_stack_pointer(vm_module.shipped_module())

    assert named.endswith(b"\x00\x19\x04name\x07\x12\x01\x00\x0f__stack_pointer")


def test_an_unreachable_registry_is_told_in_one_sentence(tmp_path) -> None:
    environment = {
        **os.environ,
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "npm_config_cache": str(tmp_path / "npm"),
        "npm_config_registry": "http://127.0.0.1:9",
        "npm_config_fetch_retries": "0",
    }
    code = (
        "from hardware.virtual_board import vm_module\n"
        "vm_module._NPM_FLAGS = ('--fetch-retries=0',)\n"
        "try: vm_module.machine_module()\n"
        "except vm_module.VmUnavailable as error: print(error)"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )

    assert "npm could not fetch binaryen@132.0.0" in done.stdout
    assert len(done.stdout.splitlines()) == 1
    assert "repairing the MicroPython machine" in done.stderr


@pytest.mark.nightly
def test_processes_starting_at_once_repair_the_machine_once(tmp_path) -> None:
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    code = "from hardware.virtual_board import vm_module as m; m.machine_module()"
    starts = [
        subprocess.Popen(
            [sys.executable, "-c", code], env=environment, stderr=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]

    said = [process.communicate()[1] for process in starts]

    assert [process.returncode for process in starts] == [0] * 4
    assert "".join(said).count("repairing") == 1


def test_first_boots_in_many_threads_at_once_share_one_engine() -> None:
    """In a process of its own, because this one has its engine already."""
    script = (
        "import sys, threading\n"
        "from hardware.virtual_board import vm_module\n"
        "sys.setswitchinterval(1e-6)\n"
        "gate, engines = threading.Barrier(16), []\n"
        "def first_boot():\n"
        "    gate.wait()\n"
        "    engines.append((vm_module.machine_module(), vm_module.engine()))\n"
        "threads = [threading.Thread(target=first_boot) for _ in range(16)]\n"
        "[thread.start() for thread in threads]\n"
        "[thread.join() for thread in threads]\n"
        "sys.exit(len({(id(m), id(e)) for m, e in engines}) != 1)\n"
    )
    result = subprocess.run([sys.executable, "-c", script], timeout=120)
    assert result.returncode == 0
