"""The virtual board: what survives what, what ends a wake, and how time passes."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from hardware.virtual_board.board import ROM_HEAP_BYTES, Board, ScriptFailed
from hardware.virtual_board.rom import rom_modules
from hardware.virtual_board.wiring import Brownout, Wiring

START_US = 1_780_000_000_000_000


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return Board(tmp_path / "node", start_utc_us=START_US)


def _main(board: Board, code: str) -> None:
    board.write_file("/main.py", code.encode())


# --- what survives ---

MEMORY = """
import machine, time
rtc = machine.RTC()
print(machine.reset_cause(), machine.wake_reason(), time.time(), rtc.memory() == b"kept")
rtc.memory(b"kept")
{end}
"""


@pytest.mark.parametrize(
    ("end", "reason", "second_boot"),
    [
        ("machine.deepsleep(60_000)", "deepsleep", "4 4 60 True"),
        ("machine.reset()", "reset", "2 0 0 True"),
        ("machine.soft_reset()", "reset", "5 0 0 True"),
        ("import sys; sys.exit()", "reset", "5 0 0 True"),
        ("machine.WDT(timeout=9000); time.sleep(20)", "watchdog", "3 0 9 True"),
        ("1 / 0", "crash", "2 0 0 True"),
    ],
)
def test_rtc_memory_and_clock_survive_every_end_but_a_power_cut(
    board: Board, end: str, reason: str, second_boot: str
) -> None:
    _main(board, MEMORY.format(end=end))

    first, second = board.run_wake(), board.run_wake()

    assert first.stdout.startswith("1 0 0 False\n")
    assert first.reason == reason
    assert second.stdout.splitlines()[0] == second_boot


def test_a_power_on_leaves_garbage_in_rtc_memory_and_the_clock_at_2000(board: Board) -> None:
    code = "import machine, time\nprint(len(machine.RTC().memory()), time.gmtime()[:6])\n"
    _main(board, code + "machine.RTC().memory(b'kept')\nmachine.deepsleep(5000)")
    board.run_wake()

    board.power_on(at_utc_us=START_US + 3_600_000_000)
    result = board.run_wake()

    assert result.stdout == "2048 (2000, 1, 1, 0, 0, 0)\n"
    assert result.started_us == START_US + 3_600_000_000


def test_a_board_opened_again_goes_on_where_it_slept(board: Board) -> None:
    _main(board, MEMORY.format(end="machine.deepsleep(60_000)"))
    slept = board.run_wake()

    again = Board(board.folder)
    result = again.run_wake()

    assert result.started_us == slept.wake_us
    assert result.stdout.startswith("4 4 60 True")
    assert again.boots == 2


def test_a_killed_process_leaves_a_board_that_was_cut_from_power(tmp_path: Path) -> None:
    code = f"""
import os, signal
from hardware.virtual_board.board import Board
board = Board({str(tmp_path)!r}, start_utc_us={START_US})
board.write_file('/main.py', b'import machine\\nmachine.RTC().memory(b"kept")\\nmachine.deepsleep(1000)')
board.run_wake()
board.write_file('/main.py', b'with open("x", "w") as f: f.write("x")\\nopen("y", "w").write("y" * 9000)')
from hardware.virtual_board import filesystem
program = filesystem._FlashContext.erase
filesystem._FlashContext.erase = lambda *a: os.kill(os.getpid(), signal.SIGKILL)
board.run_wake()
"""
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -9

    board = Board(tmp_path)
    _main(
        board,
        "import machine, os\nprint(machine.reset_cause(), machine.RTC().memory()[:4], os.listdir())",
    )

    assert board.run_wake().stdout.startswith("1 b'")
    assert b"kept" not in board.run_wake().stdout.encode()


def test_nvs_survives_everything_but_an_erased_flash(board: Board) -> None:
    board.exec(
        "import esp32\nn = esp32.NVS('id')\nn.set_blob('key', bytes(range(256)))\n"
        "n.set_i32('count', -7)\nn.commit()"
    )
    board.power_on()
    read = (
        "import esp32\nn = esp32.NVS('id')\nb = bytearray(300)\n"
        "print(n.get_blob('key', b), b[255], n.get_i32('count'))"
    )
    assert board.exec(read) == "256 255 -7\n"
    assert board.nvs_blob("id", "key") == bytes(range(256))

    board.erase_flash()
    board.format()
    with pytest.raises(ScriptFailed, match="-4354"):
        board.exec(read)


def test_nvs_holds_the_last_of_ten_thousand_writes(board: Board) -> None:
    board.exec(
        "import esp32\nn = esp32.NVS('a')\nn.set_blob('cert', b'c' * 900)\n"
        "for i in range(10_000): n.set_i32('n', i)"
    )

    assert (
        board.exec(
            "import esp32\nn = esp32.NVS('a')\nb = bytearray(900)\n"
            "print(n.get_i32('n'), n.get_blob('cert', b))"
        )
        == "9999 900\n"
    )


# --- what ends a wake ---


def test_a_watchdog_that_is_fed_does_not_bite_until_it_is_forgotten(board: Board) -> None:
    _main(
        board,
        "import machine, time\nw = machine.WDT(timeout=8000)\n"
        "for _ in range(5):\n    time.sleep(6)\n    w.feed()\n"
        "print(time.ticks_ms() // 1000)\nwhile True: time.sleep_ms(10)",
    )

    result = board.run_wake()

    assert (result.reason, result.stdout) == ("watchdog", "30\n")
    assert 38_000_000 <= result.awake_us < 39_000_000


@pytest.mark.parametrize("armed", [True, False])
def test_an_endless_loop_ends_the_wake(
    board: Board, monkeypatch: pytest.MonkeyPatch, armed: bool
) -> None:
    monkeypatch.setattr("hardware.virtual_board.vm.ENDLESS_LOOP_S", 0.3)
    arm = "import machine; machine.WDT(timeout=5000)\n" if armed else ""
    _main(board, arm + "while True: pass")

    result = board.run_wake()

    assert (result.reason, result.error) == ("watchdog" if armed else "crash", "endless loop")
    assert result.awake_us >= (5_000_000 if armed else 0)


def test_waiting_for_ticks_ends_by_itself(board: Board) -> None:
    _main(
        board,
        "import time, machine\nt = time.ticks_ms()\n"
        "while time.ticks_diff(time.ticks_ms(), t) < 30_000: pass\nmachine.deepsleep(1)",
    )

    result = board.run_wake()

    assert result.reason == "deepsleep"
    assert 30_000_000 <= result.awake_us < 32_000_000


def test_a_program_that_ends_stands_still_until_its_watchdog_bites(board: Board) -> None:
    _main(board, "import machine\nmachine.WDT(timeout=7000)\nprint('done')")

    result = board.run_wake()

    assert (result.reason, result.stdout) == ("watchdog", "done\n")
    assert result.awake_us >= 7_000_000


def test_an_exception_of_the_program_is_reported_not_raised(board: Board) -> None:
    _main(board, "def f():\n    raise ValueError('wrong')\nf()")

    result = board.run_wake()

    assert (result.reason, result.error) == ("crash", "ValueError: wrong")
    assert "Traceback" in result.stdout


def test_main_is_not_run_after_a_failed_boot(board: Board) -> None:
    board.write_files({"/boot.py": b"print('boot')\n1/0", "/main.py": b"print('main')"})

    assert "main" not in board.run_wake().stdout.replace("__main__", "").replace("main.py", "")


def test_a_program_larger_than_the_heap_is_a_crash_of_the_node_only(board: Board) -> None:
    _main(board, "x = []\nwhile True: x.append(bytearray(1000))")

    result = board.run_wake()

    assert (result.reason, result.error.split(":")[0]) == ("crash", "MemoryError")


def test_a_supply_that_collapses_restarts_the_board_cold(tmp_path: Path) -> None:
    class WeakSupply:
        def power_changed(self, pin: int, level: int, now_us: int) -> None:
            if level:
                raise Brownout("battery empty")

    board = Board(tmp_path, Wiring(power=[WeakSupply()]), start_utc_us=START_US)
    _main(
        board,
        "import machine\nprint(machine.reset_cause())\nmachine.Pin(4, machine.Pin.OUT, value=1)",
    )

    assert [board.run_wake().reason for _ in range(2)] == ["brownout"] * 2
    assert board.run_wake().stdout == "1\n"


def test_a_flash_without_file_system_is_a_crash_not_an_exception(board: Board) -> None:
    board.erase_flash()

    assert board.run_wake().reason == "crash"


# --- scripts ---


def test_a_script_returns_what_it_prints_and_fails_with_its_traceback(board: Board) -> None:
    assert board.exec("import os\nprint(os.listdir('/'), len(os.urandom(5)))") == "[] 5\n"
    with pytest.raises(ScriptFailed, match="NameError"):
        board.exec("print(nowhere)")


def test_files_written_at_the_bench_are_what_the_node_reads_and_imports(board: Board) -> None:
    board.write_files(
        {"/a/node/cycle.py": b"def run(): return 'from the slot'", "/big": bytes(range(256)) * 100}
    )

    printed = board.exec(
        "import sys\nsys.path.insert(0, '/a')\nfrom node import cycle\nprint(cycle.run())\n"
        "d = open('/big', 'rb').read()\nprint(len(d), d[25599])\n"
        "f = open('/big', 'rb'); f.seek(-2, 2); print(f.read(), f.tell()); f.seek(5); print(f.read(1))"
    )

    assert printed == "from the slot\n25600 255\nb'\\xfe\\xff' 25600\nb'\\x05'\n"


def test_files_of_the_node_are_there_for_the_bench(board: Board) -> None:
    board.exec(
        "import os\nos.mkdir('/spool')\n"
        "with open('/spool/a.tmp', 'wb') as f: f.write(b'abc')\n"
        "os.rename('/spool/a.tmp', '/spool/a')\n"
        "with open('/spool/a', 'ab') as f: f.write(b'def')\n"
        "with open('/gone', 'w') as f: f.write('x')\n"
        "os.remove('/gone')\nos.sync()"
    )

    assert board.list_files() == [("/spool/a", 6)]
    assert board.read_file("/spool/a") == b"abcdef"


@pytest.mark.parametrize(
    ("action", "number"),
    [
        ("open('/none')", 2),
        ("os.stat('/none')", 2),
        ("os.mkdir('/d')", 17),
        ("os.rmdir('/d')", 90),
        ("os.remove('/none')", 2),
        ("open('/d', 'w')", 21),
        ("os.listdir('/none')", 2),
    ],
)
def test_file_errors_carry_the_esp32s_numbers(board: Board, action: str, number: int) -> None:
    board.write_file("/d/f", b"x")

    printed = board.exec(f"import os\ntry:\n    {action}\nexcept OSError as e:\n    print(e.errno)")

    assert printed == f"{number}\n"


def test_a_full_flash_is_an_error_of_the_node(board: Board) -> None:
    printed = board.exec(
        "try:\n    with open('/full', 'wb') as f:\n        while True: f.write(bytes(8192))\n"
        "except OSError as e:\n    print(e.errno)\nimport os\nos.remove('/full')\n"
        "print(os.statvfs('/')[3] > 200)"
    )

    assert printed == "28\nTrue\n"


# --- time ---


def test_a_day_of_quarter_hours_takes_seconds(board: Board) -> None:
    _main(board, "import machine\nmachine.deepsleep(900_000 - 450)")
    began = time.process_time()  # its own work: the machine that runs the tests may be busy

    while board.now_us < START_US + 86_400_000_000:
        assert board.run_wake().reason == "deepsleep"

    assert board.boots == 96
    assert time.process_time() - began < 5


def test_runs_with_the_same_start_print_the_same(tmp_path: Path) -> None:
    code = (
        "import time, machine\nprint(time.time(), time.ticks_us())\ntime.sleep_ms(123)\n"
        "print(time.ticks_us(), machine.RTC().memory()[:20])\nmachine.deepsleep(1000)"
    )
    printed = []
    for name in "ab":
        board = Board(tmp_path / name, start_utc_us=START_US)
        _main(board, code)
        printed.append([board.run_wake().stdout for _ in range(3)])

    assert printed[0] == printed[1]


def test_a_fast_oscillator_wakes_the_node_early(tmp_path: Path) -> None:
    board = Board(tmp_path, start_utc_us=START_US, drift_ppm=200)
    _main(board, "import machine, time\nprint(time.time())\nmachine.deepsleep(86_400_000)")

    first, second = board.run_wake(), board.run_wake()

    assert first.wake_us is not None
    assert 86_400_000_000 - (first.wake_us - first.ended_us) == pytest.approx(17_280_000, rel=1e-3)
    assert second.stdout == "86400\n"


def test_the_rtc_can_be_set_and_read(board: Board) -> None:
    printed = board.exec(
        "import machine, time\nmachine.RTC().datetime((2026, 6, 1, 0, 12, 30, 15, 0))\n"
        "print(machine.RTC().datetime()[:7], time.time(), time.localtime())\n"
        "print(time.mktime((2026, 6, 1, 12, 30, 15, 0, 0)))"
    )

    assert printed == (
        "(2026, 6, 1, 0, 12, 30, 15) 833632215 (2026, 6, 1, 12, 30, 15, 0, 152)\n833632215\n"
    )


# --- many boards ---


def test_boards_in_parallel_threads_do_not_meet(tmp_path: Path) -> None:
    outcomes: dict[str, list[str]] = {}

    def live(name: str) -> None:
        board = Board(tmp_path / name, start_utc_us=START_US)
        _main(board, f"import machine\nprint({name!r} * 3)\nmachine.deepsleep(1000)")
        outcomes[name] = [board.run_wake().stdout for _ in range(20)]

    threads = [threading.Thread(target=live, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert outcomes == {name: [f"{name * 3}\n"] * 20 for name in "abcd"}


def test_a_sleeping_board_holds_neither_machine_nor_open_file(tmp_path: Path) -> None:
    boards = [Board(tmp_path / str(n), start_utc_us=START_US) for n in range(20)]
    before = len(list(Path("/proc/self/fd").iterdir()))
    for board in boards:
        _main(board, "import machine\nmachine.deepsleep(1000)")
        board.run_wake()

    assert len(list(Path("/proc/self/fd").iterdir())) == before


# --- built-in modules ---


def test_built_in_modules_take_no_more_heap_than_was_added_for_them(board: Board) -> None:
    names = [name.removesuffix(".mpy") for name in rom_modules()]
    measure = (
        "import gc\ngc.collect()\n_a = gc.mem_free()\n{}\ngc.collect()\nprint(_a - gc.mem_free())"
    )

    used = int(board.exec(measure.format("import " + ", ".join(names))))

    assert ROM_HEAP_BYTES * 0.7 < used <= ROM_HEAP_BYTES
