"""`fleet group`: groups of nodes, their members and the tags that rules go by."""

from __future__ import annotations

from typing import Any

import click

from fleet_server import clock
from fleet_server.cli.answers import answer, data_option, json_option
from fleet_server.cli.chosen_nodes import nodes_options, rule_of, rule_options, selection_of
from fleet_server.cli.database import open_session, settings_of
from fleet_server.services import grouping, layering
from fleet_server.services.grouping import GroupOverview
from fleet_server.services.selecting import Selection


@click.group()
def group() -> None:
    """Groups of nodes: by hand and by rule.

    Example: fleet group list
    """


@group.command(name="list")
@data_option
@json_option
def list_groups(*, data_dir: str | None, as_json: bool) -> None:
    """All groups with their rules; of two groups the one with the higher priority has the last word.

    Example: fleet group list --json
    """
    with open_session(data_dir) as session:
        found = grouping.groups(session)
    rows = [
        {
            "id": one.id,
            "name": one.name,
            "description": one.description,
            "priority": one.priority,
            "rule": _rule(one.rule),
            "members": one.members,
        }
        for one in found
    ]
    text = "\n".join(_line(one) for one in found) or "There is no group yet; `fleet group add`."
    answer({"groups": rows}, text, as_json=as_json)


@group.command()
@click.argument("name")
@click.option("--description", default="", help="What the group is for.")
@click.option("--priority", type=int, default=0, show_default=True, help="The higher one wins.")
@rule_options
@data_option
@json_option
def add(
    *,
    name: str,
    description: str,
    priority: int,
    data_dir: str | None,
    as_json: bool,
    **rule: str | None,
) -> None:
    """Make a group NAME; with a rule, its nodes join and leave by themselves.

    Example: fleet group add Innenstadt --near 51.4818,7.2162,800
    """
    with open_session(data_dir) as session:
        made = grouping.create_group(
            session,
            name,
            now=clock.now(),
            description=description,
            priority=priority,
            rule=rule_of(**rule),
        )
        members = len(grouping.members(session, made.id, limit=1_000_000))
    fields = {"id": made.id, "name": name, "members": members}
    answer(fields, f"Made group {name} with {members} nodes.", as_json=as_json)


@group.command()
@click.argument("name")
@click.option("--name", "new_name", help="Another name.")
@click.option("--description", help="Another description.")
@click.option("--priority", type=int, help="Another priority.")
@click.option("--no-rule", is_flag=True, help="Only who was put there by hand is in it.")
@rule_options
@data_option
@json_option
def change(
    *,
    name: str,
    new_name: str | None,
    description: str | None,
    priority: int | None,
    no_rule: bool,
    data_dir: str | None,
    as_json: bool,
    **rule: str | None,
) -> None:
    """Change what is given of group NAME; a rule replaces the one before.

    Example: fleet group change Innenstadt --priority 5
    """
    wanted = rule_of(**rule)
    given = wanted if not wanted.is_empty else Selection() if no_rule else None
    with open_session(data_dir) as session:
        found = layering.find_group(session, name)
        changed = grouping.change_group(
            session,
            found.id,
            now=clock.now(),
            name=new_name,
            description=description,
            priority=priority,
            rule=given,
            at_once=settings_of(data_dir).approval_wanted_above,
        )
    fields = {"id": changed.id, "name": changed.name, "priority": changed.priority}
    answer(fields, f"Changed group {changed.name}.", as_json=as_json)


@group.command()
@click.argument("name")
@data_option
@json_option
def delete(*, name: str, data_dir: str | None, as_json: bool) -> None:
    """Forget group NAME; it must want nothing of its nodes any more.

    Example: fleet group delete Innenstadt
    """
    with open_session(data_dir) as session:
        found = layering.find_group(session, name)
        grouping.delete_group(session, found.id, now=clock.now())
    answer({"name": name}, f"Forgot group {name}.", as_json=as_json)


@group.command()
@click.argument("name")
@data_option
@json_option
def members(*, name: str, data_dir: str | None, as_json: bool) -> None:
    """The nodes in group NAME, and whether by hand or by its rule.

    Example: fleet group members Innenstadt
    """
    with open_session(data_dir) as session:
        found = layering.find_group(session, name)
        nodes = grouping.members(session, found.id, limit=1_000_000)
    rows = [
        {
            "node_id": one.node_id,
            "label": one.label,
            "model": one.model,
            "by_hand": one.by_hand,
            "by_rule": one.by_rule,
        }
        for one in nodes
    ]
    lines = [
        f"{one.node_id}  {one.label} ({one.model})"
        f"{', by hand' if one.by_hand else ''}{', by rule' if one.by_rule else ''}"
        for one in nodes
    ]
    answer({"members": rows}, "\n".join(lines) or f"{name} has no nodes.", as_json=as_json)


@group.command()
@click.argument("name")
@nodes_options
@data_option
@json_option
def join(*, name: str, data_dir: str | None, as_json: bool, **chosen: Any) -> None:
    """Put nodes into group NAME by hand.

    Example: fleet group join Innenstadt --node tree-01 --node tree-02
    """
    with open_session(data_dir) as session:
        found = layering.find_group(session, name)
        count = grouping.add_members(
            session,
            found.id,
            selection_of(session, **chosen),
            now=clock.now(),
            at_once=settings_of(data_dir).approval_wanted_above,
        )
    answer({"name": name, "nodes": count}, f"{count} nodes joined {name}.", as_json=as_json)


@group.command()
@click.argument("name")
@nodes_options
@data_option
@json_option
def leave(*, name: str, data_dir: str | None, as_json: bool, **chosen: Any) -> None:
    """Take nodes that were put into group NAME by hand out of it.

    Example: fleet group leave Innenstadt --node tree-01
    """
    with open_session(data_dir) as session:
        found = layering.find_group(session, name)
        count = grouping.remove_members(
            session,
            found.id,
            selection_of(session, **chosen),
            now=clock.now(),
            at_once=settings_of(data_dir).approval_wanted_above,
        )
    answer({"name": name, "nodes": count}, f"{count} nodes left {name}.", as_json=as_json)


@group.command()
@click.argument("word")
@click.option("--remove", is_flag=True, help="Take it off.")
@nodes_options
@data_option
@json_option
def tag(*, word: str, remove: bool, data_dir: str | None, as_json: bool, **chosen: Any) -> None:
    """Put the tag WORD on nodes; groups that go by it follow.

    Example: fleet group tag young --node tree-01
    """
    do = grouping.untag_nodes if remove else grouping.tag_nodes
    if not remove and chosen["tag"] == word:
        raise click.UsageError(f"These nodes are tagged {word} already.")
    with open_session(data_dir) as session:
        count = do(
            session,
            selection_of(session, **chosen),
            word,
            now=clock.now(),
            at_once=settings_of(data_dir).approval_wanted_above,
        )
    did = "lost" if remove else "got"
    answer({"tag": word, "nodes": count}, f"{count} nodes {did} the tag {word}.", as_json=as_json)


def _rule(rule: Selection | None) -> dict[str, Any] | None:
    if rule is None:
        return None
    return {
        name: value
        for name in ("model", "site_kind", "tag", "near")
        if (value := getattr(rule, name)) is not None
    }


def _line(one: GroupOverview) -> str:
    rule = ", ".join(f"{name}={value}" for name, value in (_rule(one.rule) or {}).items())
    goes_by = f" by {rule}" if rule else ""
    about = f": {one.description}" if one.description else ""
    return f"{one.name} (priority {one.priority}): {one.members} nodes{goes_by}{about}"
