"""Options that several commands at the bench share."""

from __future__ import annotations

from pathlib import Path

import click

board_option = click.option(
    "--board",
    "address",
    metavar="ADDRESS",
    help="The board: a port (COM5, /dev/ttyUSB0), one of another computer (rfc2217://HOST:PORT, socket://HOST:PORT)"
    " or virtual:FOLDER; the only one that is plugged in when not given.",
)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="One JSON object on one line of stdout."
)
server_option = click.option("--server", help="The fleet's node listener: https://HOST:PORT.")
server_ca_option = click.option(
    "--server-ca",
    type=click.Path(path_type=Path),
    help="File with the CA that the fleet's certificate must come from.",
)
token_option = click.option("--token", envvar="PROVISION_TOKEN", help="An enrolment token.")
wifi_file_option = click.option(
    "--wifi-file",
    type=click.Path(path_type=Path),
    help="TOML with the Wi-Fi networks: [[network]] with ssid and password, best first; a virtual board needs none.",
)
image_option = click.option(
    "--image",
    "image_source",
    metavar="FILE|URL",
    help="MicroPython for the ESP32, written first to a board that is no node yet; without it the board must have"
    " MicroPython.",
)
image_sha256_option = click.option(
    "--image-sha256", metavar="HEX", help="SHA-256 that the image must have."
)
