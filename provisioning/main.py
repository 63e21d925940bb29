"""The `provision` command: what a person does with a board at the bench, and with many virtual ones."""

from __future__ import annotations

from typing import NoReturn

import click

from provisioning.board_commands import read, wipe
from provisioning.catalogue_commands import boards, parts, sensors, wiring
from provisioning.commission_command import commission_nodes, label_node
from provisioning.ending import run_to_its_end
from provisioning.node_commands import node
from provisioning.packet_command import upload
from provisioning.release_commands import release
from provisioning.release_root_commands import root
from provisioning.self_test_command import test_node
from provisioning.virtual_boards import virtual_command


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="stadtsensor", prog_name="provision")
def provision() -> None:
    """Stadtsensor's bench: what a node is built of; flash and enrol nodes, run virtual ones; sign releases.

    Example: provision node enrol --help
    """


for of_node in (test_node, commission_nodes, label_node, upload, read, wipe):
    node.add_command(of_node)
release.add_command(root)
for command in (boards, sensors, wiring, parts, node, release, virtual_command()):
    provision.add_command(command)


def main() -> NoReturn:
    """Run `provision`; what a person can cause ends in one sentence and exit 1, wrong use in exit 2."""
    run_to_its_end(provision, None, name="provision")
