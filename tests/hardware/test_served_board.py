"""A board on its cable, byte by byte: console, Ctrl-C, resets, sleep, and what people do to cables."""

from __future__ import annotations

import fcntl
import os
import random
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hardware.virtual_board.board import Board
from hardware.virtual_board.cable.chips import CHIPS
from hardware.virtual_board.cable.serving import Serving
from hardware.virtual_board.esp_image import token_image
from hardware.virtual_board.flash import Flash, region
from tests.hardware.cable import Cable, connected, esptool, mpremote, printed_by, served, start_tool

PROMPT = b">>> "
POWER_ON, DEEP_SLEEP = 1, 4  # machine.reset_cause()
BOOTS = b"(SPI_FAST_FLASH_BOOT)\r\n"
INTERRUPTED = (
    b'Traceback (most recent call last):\r\n  File "<stdin>", line %d, in <module>\r\n'
    b"KeyboardInterrupt: \r\n"
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """One board for the tests that leave it with an empty file system and MicroPython."""
    with served(tmp_path_factory.mktemp("served") / "board") as running:
        yield running


@pytest.fixture
def cable(shared: Serving) -> Iterator[Cable]:
    """Connected, in the raw REPL of a machine that has just started."""
    with connected(shared.doors.tcp_url) as cable:
        cable.enter_raw_repl()
        cable.send(b"\x04")
        cable.hear(b"MPY: soft reboot\r\nraw REPL; CTRL-B to exit\r\n>")
        yield cable


def _write(cable: Cable, path: str, code: str) -> None:
    assert cable.exec(f"with open({path!r}, 'w') as f: f.write({code!r})") == (b"", b"")


def _wait_until_asleep(folder: Path) -> None:
    until_s = time.monotonic() + 30
    while Board(folder).reset_cause != DEEP_SLEEP:
        assert time.monotonic() < until_s


def _folder(tmp_path: Path, **files: str) -> Path:
    """A board's folder with files on it."""
    board = Board(tmp_path / "board")
    board.write_files({f"/{name}.py": code.encode() for name, code in files.items()})
    return board.folder


# --- console ---


def test_raw_repl_keeps_globals_and_tells_output_from_traceback(cable: Cable) -> None:
    assert cable.exec("x = 20\nprint(x)") == (b"20\r\n", b"")
    printed, error = cable.exec("print(x + 1)\nx / 0")
    assert printed == b"21\r\n"
    assert error == (
        b'Traceback (most recent call last):\r\n  File "<stdin>", line 2, in <module>\r\n'
        b"ZeroDivisionError: divide by zero\r\n"
    )


@pytest.mark.parametrize(
    ("code", "last_line"),
    [
        ("open('nope')", b"OSError: [Errno 2] ENOENT"),
        ("import os\nos.mkdir('d')\nos.mkdir('d')", b"OSError: [Errno 17] EEXIST"),
        ("import os\nos.rmdir('d')\nos.rmdir('d')", b"OSError: [Errno 2] ENOENT"),
        ("import os\nos.mkdir('d')\nopen('d/x', 'w').close()\nos.rmdir('d')", b"OSError: 90"),
        ("raise OSError(-4354)", b"OSError: -4354"),
        ("import machine\nmachine.RTC().memory(bytes(4000))", b"ValueError: buffer too long"),
        ("x =", b"SyntaxError: invalid syntax"),
        ("bytes(200_000)", b"MemoryError: memory allocation failed, allocating 200001 bytes"),
    ],
)
def test_errors_have_the_names_of_an_esp32(cable: Cable, code: str, last_line: bytes) -> None:
    _, error = cable.exec(code)

    assert error.splitlines()[-1] == last_line
    assert b"/rom/" not in error
    assert b"resident" not in error


def test_raw_paste_gives_a_window_at_a_time(cable: Cable) -> None:
    code = b"print('" + b"x" * 300 + b"')"

    cable.send(b"\x05A\x01")
    assert cable.hear(b"R\x01") == b"R\x01"
    assert cable.hear(b"\x80\x00\x01") == b"\x80\x00\x01"
    for at in range(0, len(code), 128):
        piece = code[at : at + 128]
        cable.send(piece)
        if len(piece) == 128:
            assert cable.hear(b"\x01") == b"\x01"
    cable.send(b"\x04")

    assert cable.hear(b">") == b"\x04" + b"x" * 300 + b"\r\n\x04\x04>"


def test_a_raw_paste_that_stops_half_way_is_given_up_by_ctrl_c(cable: Cable) -> None:
    cable.send(b"\x05A\x01print('never')")
    cable.hear(b"\x01\x80\x00\x01")
    cable.send(b"\r\x03")

    assert b"KeyboardInterrupt" in cable.hear(b"\x04>")
    assert cable.exec("print('on')") == (b"on\r\n", b"")


def test_prompt_runs_lines_blocks_pasted_code_and_remembers(cable: Cable) -> None:
    cable.send(b"\x02")
    assert b"Generic ESP32 module with ESP32" in cable.hear(PROMPT)
    for typed, answer in [
        (b"6 * 8\x7f7\r", b"6 * 8\b \b7\r\n42\r\n>>> "),
        (b"\x1b[A\r", b"6 * 7\r\n42\r\n>>> "),
        (b"for i in 1, 2:\r", b"for i in 1, 2:\r\n... "),
        (b" print(i)\r", b" print(i)\r\n... "),
        (b"\r", b"\r\n1\r\n2\r\n>>> "),
        (b"half a line\x03", b"half a line\r\n>>> "),
        (b"\x05", b"\r\npaste mode; Ctrl-C to cancel, Ctrl-D to finish\r\n=== "),
        (b"a = 3\r", b"a = 3\r\n=== "),
        (b"a\rprint(a)\x04", b"a\r\n=== print(a)\r\n3\r\n>>> "),
    ]:
        cable.send(typed)
        assert cable.hear(answer[-4:]) == answer
    cable.send(b"\x04")
    assert cable.hear(PROMPT).startswith(b"\r\nMPY: soft reboot\r\nMicroPython v1.27")


@pytest.mark.parametrize("key", [b"\x1b", b"\x1b[", b"\x1b[1;", b"\x1bO", b"\x1b[15~", b"\x1bx"])
def test_keys_and_parts_of_keys_do_not_swallow_what_follows(cable: Cable, key: bytes) -> None:
    cable.send(b"\x02")
    cable.hear(PROMPT)
    cable.send(key)

    cable.enter_raw_repl()


def test_a_soft_reset_forgets_globals_and_in_raw_mode_runs_boot_py_alone(cable: Cable) -> None:
    _write(cable, "boot.py", "print('boot')")
    _write(cable, "main.py", "print('main')")
    cable.exec("x = 1")

    cable.send(b"\x04")
    assert cable.hear(b">") == (b"OK\r\nMPY: soft reboot\r\nboot\r\nraw REPL; CTRL-B to exit\r\n>")
    assert b"NameError" in cable.exec("x")[1]

    cable.send(b"\x02")
    cable.hear(PROMPT)
    cable.send(b"\x04")
    assert cable.hear(PROMPT).startswith(b"\r\nMPY: soft reboot\r\nboot\r\nmain\r\nMicroPython")
    cable.enter_raw_repl()
    cable.exec("import os\nos.remove('boot.py')\nos.remove('main.py')")


@pytest.mark.parametrize("end", ["machine.soft_reset()", "raise SystemExit"])
def test_code_may_end_in_a_soft_reset(cable: Cable, end: str) -> None:
    cable.send(f"import machine\n{end}\x04".encode())

    assert cable.hear(b">") == b"OK\x04\x04MPY: soft reboot\r\nraw REPL; CTRL-B to exit\r\n>"
    assert cable.exec("print(machine)")[1].endswith(b"isn't defined\r\n")
    assert cable.exec("import machine\nprint(machine.reset_cause())")[0] == b"5\r\n"


# --- Ctrl-C ---


@pytest.mark.parametrize(
    "busy",
    [
        "while True: pass",
        "while True: print(end='')",
        "import time\ntime.sleep(1000)",
        "import time\nwhile True: time.sleep_ms(1)",
        "import time\nwhile True: time.ticks_ms()",
        "import sys\nsys.stdin.read(1)",
        "import machine\nmachine.lightsleep(1_000_000)",
        "sum(i for i in range(10**9))",
    ],
)
def test_ctrl_c_ends_what_runs_and_keeps_its_globals(cable: Cable, busy: str) -> None:
    cable.send(f"x = 7\nprint('busy')\n{busy}\x04".encode())
    cable.hear(b"busy\r\n")
    cable.send(b"\x03")

    assert cable.hear(b"KeyboardInterrupt: \r\n\x04>").startswith(b"\x04Traceback")
    assert cable.exec("print(x)") == (b"7\r\n", b"")


def test_ctrl_c_is_not_kept_for_the_next_program(cable: Cable) -> None:
    cable.send(b"\x03\x03")

    assert cable.exec("for i in range(1000): x = i\nprint(x)") == (b"999\r\n", b"")


def test_ctrl_c_can_be_caught(cable: Cable) -> None:
    code = "try:\n print('busy')\n while True: pass\nexcept KeyboardInterrupt: print('caught')"
    cable.send(code.encode() + b"\x04")
    cable.hear(b"busy\r\n")
    cable.send(b"\x03")

    assert cable.hear(b">") == b"caught\r\n\x04\x04>"


def test_ctrl_c_breaks_into_main_py_without_losing_what_it_knows(tmp_path: Path) -> None:
    main = "count = 0\nprint('busy')\nwhile True: count += 1"
    with (
        served(_folder(tmp_path, boot="name = 'boot'", main=main)) as serving,
        connected(serving.doors.tcp_url) as cable,
    ):
        cable.hear(b"busy\r\n")
        cable.send(b"\x03")
        assert b'  File "main.py", line 3, in <module>\r\nKeyboard' in cable.hear(PROMPT)
        cable.enter_raw_repl()
        assert cable.exec("print(name, count > 0)") == (b"boot True\r\n", b"")


def test_a_boot_py_that_fails_keeps_main_py_from_running(tmp_path: Path) -> None:
    with (
        served(_folder(tmp_path, boot="1 / 0", main="print('main')")) as serving,
        connected(serving.doors.tcp_url) as cable,
    ):
        heard = cable.hear(PROMPT)
        assert b'File "boot.py", line 1, in <module>\r\nZeroDivisionError' in heard
        assert b"main" not in heard


# --- time, sleep, watchdog ---

SLEEPER = """
import machine
print("woke", machine.reset_cause(), bytes(machine.RTC().memory()[:4]))
machine.RTC().memory(b"kept")
machine.deepsleep({duration_ms})
"""


def test_deep_sleep_lasts_as_long_in_the_world_as_for_the_node(tmp_path: Path) -> None:
    with (
        served(_folder(tmp_path, main=SLEEPER.format(duration_ms=700))) as serving,
        connected(serving.doors.tcp_url) as cable,
    ):
        cable.hear(b"woke 1 ")
        slept = time.monotonic()
        cable.hear(b"rst:0x5 (DEEPSLEEP_RESET),boot:0x13")
        assert time.monotonic() - slept > 0.6
        cable.hear(b"woke 4 b'kept'\r\n")


def test_a_sleeping_board_hears_nothing_but_ctrl_c_which_wakes_it(tmp_path: Path) -> None:
    with (
        served(_folder(tmp_path, main=SLEEPER.format(duration_ms=3_600_000))) as serving,
        connected(serving.doors.tcp_url) as cable,
    ):
        _wait_until_asleep(tmp_path / "board")
        cable.send(b"print('lost')\r")
        cable.enter_raw_repl()
        assert cable.exec("import machine\nprint(machine.reset_cause())") == (b"1\r\n", b"")


@pytest.mark.parametrize("then", ["while True: pass", "import time\ntime.sleep(100)", ""])
def test_the_watchdog_bites_in_programs_and_at_the_prompt(cable: Cable, then: str) -> None:
    cable.send(f"import machine\nmachine.WDT(timeout=300)\n{then}\x04".encode())

    cable.hear(b"task_wdt: Task watchdog got triggered.\r\n")
    cable.hear(BOOTS)
    cable.enter_raw_repl()
    assert cable.exec("import machine\nprint(machine.reset_cause())") == (b"3\r\n", b"")


def test_a_soft_reset_does_not_disarm_the_watchdog(cable: Cable) -> None:
    cable.exec("import machine\nmachine.WDT(timeout=500)")
    cable.send(b"\x04")
    cable.hear(b"soft reboot")

    cable.hear(b"task_wdt")


def test_a_reset_by_code_boots_with_rom_message_and_keeps_rtc_memory(cable: Cable) -> None:
    cable.exec("import machine\nmachine.RTC().memory(b'kept')")
    cable.send(b"machine.reset()\x04")

    assert b"rst:0xc (SW_CPU_RESET),boot:0x13" in cable.hear(PROMPT)
    cable.enter_raw_repl()
    printed, _ = cable.exec("import machine\nprint(machine.RTC().memory())")
    assert printed == b"b'kept'\r\n"


# --- flash ---


def test_an_erased_board_boots_nothing_until_an_image_is_there(tmp_path: Path) -> None:
    (tmp_path / "image.bin").write_bytes(token_image())
    with served(_folder(tmp_path, main="print('main')")) as serving:
        address = serving.doors.tcp_url
        with connected(address) as cable:
            cable.hear(b"main\r\n")
        printed_by(esptool(address, "erase-flash"))
        with connected(address) as cable:
            assert b"main" not in cable.hear(b"invalid header: 0xffffffff\r\n")
        printed_by(esptool(address, "write-flash", "0x1000", tmp_path / "image.bin"))
        with connected(address) as cable:
            cable.enter_raw_repl()
            assert cable.exec("import os\nprint(os.listdir())") == (b"[]\r\n", b"")
    assert Board(tmp_path / "board").list_files() == []


def test_a_broken_file_system_is_told_and_not_formatted(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    flash = Flash(folder / "flash.bin")
    for sector in range(4):
        flash.program(region("vfs").offset + sector * 4096, b"not littlefs" * 300)
    flash.close()

    with served(folder) as serving, connected(serving.doors.tcp_url) as cable:
        cable.hear(b"The filesystem appears to be corrupted")
    assert (folder / "flash.bin").read_bytes().count(b"not littlefs") == 4 * 300


def test_what_was_done_on_the_cable_is_there_for_the_boards_other_commands(tmp_path: Path) -> None:
    with (
        served(tmp_path / "board") as serving,
        connected(serving.doors.tcp_url) as cable,
    ):
        cable.enter_raw_repl()
        _write(cable, "main.py", "import machine\nmachine.deepsleep(60_000)")
        cable.exec("import esp32\nn = esp32.NVS('id')\nn.set_blob('node_id', b'n-1')\nn.commit()")

    board = Board(tmp_path / "board")
    assert board.nvs_blob("id", "node_id") == b"n-1"
    assert board.run_wake().reason == "deepsleep"


def test_a_board_on_a_cable_is_nobody_elses(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    with served(folder):
        with pytest.raises(OSError, match="in use by another program"):
            Board(folder).list_files()
        with pytest.raises(OSError, match="in use by another program"), served(folder):
            pass
    assert Board(folder).list_files() == []


def test_switched_off_while_awake_it_has_lost_power_and_asleep_it_sleeps_on(tmp_path: Path) -> None:
    folder = _folder(tmp_path, main=SLEEPER.format(duration_ms=3_600_000))
    with served(folder) as serving, connected(serving.doors.tcp_url) as cable:
        cable.hear(b"woke")
        started_us = time.time_ns() // 1000
        _wait_until_asleep(folder)
    board = Board(folder)
    assert board.reset_cause == DEEP_SLEEP
    assert abs(board.now_us - started_us - 3_600_000_000) < 10_000_000

    with served(folder) as serving, connected(serving.doors.tcp_url) as cable:
        cable.hear(b"woke 1 ")  # the cable brings power
        cable.enter_raw_repl()
    assert Board(folder).reset_cause == POWER_ON


# --- doors ---


def test_one_client_at_a_time_whatever_the_door(shared: Serving, cable: Cable) -> None:
    for url in (shared.doors.tcp_url, shared.doors.rfc2217_url):
        with pytest.raises(ConnectionRefusedError):
            Cable(url)
    refused = mpremote(shared.doors.tcp_url, "exec", "1")
    assert refused.returncode == 1
    assert "it may be in use by another program" in refused.stdout + refused.stderr
    terminal = os.open(shared.doors.pty_path, os.O_RDWR | os.O_NOCTTY)
    try:
        with pytest.raises(BlockingIOError):
            fcntl.flock(terminal, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(terminal)
    assert cable.exec("print('undisturbed')") == (b"undisturbed\r\n", b"")


def test_a_port_stays_the_boards_while_its_door_is_shut(shared: Serving, cable: Cable) -> None:
    port = int(shared.doors.rfc2217_url.rpartition(":")[2])
    with socket.socket() as other, pytest.raises(OSError, match="Address already in use"):
        other.bind(("127.0.0.1", port))


def test_the_pseudo_terminal_is_a_door_too(shared: Serving, tmp_path: Path) -> None:
    address = shared.doors.pty_path
    content = random.Random(3).randbytes(2000)
    (tmp_path / "there").write_bytes(content)
    (tmp_path / "image.bin").write_bytes(token_image(content))

    copied = ["fs", "cp", tmp_path / "there", ":x", "+", "fs", "cp", ":x", tmp_path / "back"]
    printed_by(mpremote(address, *copied, "+", "fs", "rm", ":x"))
    esptool_options = ["--before", "no-reset", "--after", "no-reset"]
    printed = printed_by(
        esptool(address, *esptool_options, "write-flash", "0x1000", tmp_path / "image.bin")
    )

    assert (tmp_path / "back").read_bytes() == content
    assert "Hash of data verified" in printed
    assert printed_by(mpremote(address, "exec", "print(2)")) == "2\n"


@pytest.mark.parametrize("name", ["esp32s3", "esp32c3"])
def test_other_chips_are_recognised_and_refuse_our_image(tmp_path: Path, name: str) -> None:
    (tmp_path / "image.bin").write_bytes(token_image())
    with served(tmp_path / "board", chip=CHIPS[name]) as serving:
        address = serving.doors.tcp_url
        printed = printed_by(esptool(address, "read-mac"))
        assert f"Chip type:          {CHIPS[name].name}" in printed
        assert "24:6f:28:" in printed
        refused = esptool(address, "write-flash", "0x1000", tmp_path / "image.bin")
        assert refused.returncode != 0
        assert "not an" in refused.stdout + refused.stderr


# --- what people do to cables ---


SYNC = b"\xc0\x00\x08\x24\x00\x00\x00\x00\x00\x07\x07\x12\x20" + b"U" * 32 + b"\xc0"


@pytest.mark.parametrize("first", [b"", b"\x01", b"\x01\x05A\x01", b"\x05", SYNC])
def test_garbage_on_the_line_disturbs_neither_console_nor_loader(
    shared: Serving, first: bytes
) -> None:
    address = shared.doors.tcp_url
    with connected(address) as cable:
        cable.send(first + random.Random(first).randbytes(20_000))

    assert printed_by(mpremote(address, "exec", "print('well')")) == "well\n"


def test_without_lines_ctrl_c_leaves_the_loader(shared: Serving) -> None:
    with connected(shared.doors.tcp_url) as cable:
        cable.send(SYNC)
        cable.hear(b"\x01\x08\x04\x00")
        cable.enter_raw_repl()


def test_noise_between_its_packets_does_not_disturb_the_loader(shared: Serving) -> None:
    noise = random.Random(4).randbytes(20_000)
    with connected(shared.doors.tcp_url) as cable:
        for _ in range(3):
            cable.send(SYNC)
            cable.hear(b"\x01\x08\x04\x00")
            cable.send(noise.replace(b"\x03", b""))

    assert "4MB" in printed_by(esptool(shared.doors.tcp_url, "flash-id"))


def test_cable_pulled_while_a_file_is_copied_costs_nothing_but_the_copy(
    shared: Serving, tmp_path: Path
) -> None:
    address = shared.doors.tcp_url
    content = random.Random(5).randbytes(4000)
    (tmp_path / "there").write_bytes(content)
    with connected(address) as cable:
        cable.enter_raw_repl()
        cable.exec("f = open('x', 'wb')\nw = f.write")
        cable.exec(f"w({content[:256]!r})")
        cable.send(b"\x05A\x01w(b'half of a chu")
        cable.hear(b"R\x01\x80\x00\x01")

    back = ["fs", "cp", ":x", tmp_path / "back", "+", "fs", "rm", ":x"]
    printed_by(mpremote(address, "fs", "cp", tmp_path / "there", ":x", "+", *back))
    assert (tmp_path / "back").read_bytes() == content


def test_cable_pulled_while_flash_is_written_costs_nothing_but_the_write(
    tmp_path: Path,
) -> None:
    image = token_image(random.Random(6).randbytes(300_000))
    (tmp_path / "image.bin").write_bytes(image)
    write = ["write-flash", "0x1000", tmp_path / "image.bin"]
    with served(tmp_path / "board") as serving:
        address = serving.doors.tcp_url
        victim = start_tool("esptool", "--port", address, *write)
        try:
            assert victim.stdout is not None
            assert any(re.search(r" [3-6]\d\.\d%", line) for line in victim.stdout)
        finally:
            victim.kill()
            victim.communicate()
        with connected(address) as cable:  # it has left the loader, and boots what is there
            cable.hear(PROMPT)
        assert "Hash of data verified" in printed_by(esptool(address, *write))
        assert printed_by(mpremote(address, "exec", "print(2)")) == "2\n"
