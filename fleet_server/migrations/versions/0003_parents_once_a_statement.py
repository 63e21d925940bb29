"""PostgreSQL looks for the parents of the fullest tables once for each statement, not once for each row (decision 0051)."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# (child, its column, parent, the parent's key): the foreign keys of rows that come by the thousand.
_FOREIGN_KEYS = (
    ("pack", "node_id", "node", "node_id"),
    ("raw_reading", "pack_id", "pack", "id"),
    ("observation", "datastream_id", "datastream", "id"),
    ("observation", "lineage_id", "lineage", "id"),
)

# A restored dump inserts without a search path; the functions keep the one that made these tables.
_TABLES_ARE_FOUND = "SET search_path FROM CURRENT"


def upgrade() -> None:
    if op.get_bind().dialect.name != "postgresql":
        return
    for child, column, parent, key in _FOREIGN_KEYS:
        name = f"fk_{child}_{column}"
        op.drop_constraint(name, child, type_="foreignkey")
        for statement in _checks_of_children(name, child, column, parent, key):
            op.execute(statement)
        for statement in _checks_of_parents(name, child, column, parent, key):
            op.execute(statement)


def downgrade() -> None:
    if op.get_bind().dialect.name != "postgresql":
        return
    for child, column, parent, key in _FOREIGN_KEYS:
        name = f"fk_{child}_{column}"
        for function in ("has_parents", "keeps_parents", "keeps_key"):
            op.execute(f"DROP FUNCTION {name}_{function} CASCADE")
        op.create_foreign_key(name, child, parent, [column], [key])


def _checks_of_children(
    name: str, child: str, column: str, parent: str, key: str
) -> tuple[str, ...]:
    # One index look-up for each parent that is named, however the tables had grown when the plan was made.
    function = f"""
        CREATE FUNCTION {name}_has_parents() RETURNS trigger LANGUAGE plpgsql
        {_TABLES_ARE_FOUND} SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
        BEGIN
            IF EXISTS (
                SELECT FROM (SELECT DISTINCT {column} FROM added) AS named
                WHERE NOT EXISTS (SELECT FROM {parent} WHERE {parent}.{key} = named.{column})
            ) THEN
                RAISE foreign_key_violation USING
                    TABLE = '{child}', CONSTRAINT = '{name}',
                    MESSAGE = '{child}.{column} names a row that {parent} has not';
            END IF;
            RETURN NULL;
        END $$
    """  # noqa: S608 - our own names
    triggers = (
        f"""
        CREATE TRIGGER {name}_on_{event.lower()} AFTER {event} ON {child}
        REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION {name}_has_parents()
        """
        for event in ("INSERT", "UPDATE")
    )
    return (function, *triggers)


def _checks_of_parents(
    name: str, child: str, column: str, parent: str, key: str
) -> tuple[str, ...]:
    # The lock lets those who are adding children finish first, and those who come later see that the parent is gone.
    return (
        f"""
        CREATE FUNCTION {name}_keeps_parents() RETURNS trigger LANGUAGE plpgsql {_TABLES_ARE_FOUND} AS $$
        BEGIN
            IF NOT EXISTS (SELECT FROM removed) THEN
                RETURN NULL;
            END IF;
            LOCK TABLE {child} IN SHARE ROW EXCLUSIVE MODE;
            IF EXISTS (SELECT FROM removed JOIN {child} ON {child}.{column} = removed.{key}) THEN
                RAISE foreign_key_violation USING
                    TABLE = '{parent}', CONSTRAINT = '{name}',
                    MESSAGE = 'a row of {parent} is still named by {child}.{column}';
            END IF;
            RETURN NULL;
        END $$
        """,  # noqa: S608 - our own names
        f"""
        CREATE TRIGGER {name}_on_parents_delete AFTER DELETE ON {parent}
        REFERENCING OLD TABLE AS removed FOR EACH STATEMENT EXECUTE FUNCTION {name}_keeps_parents()
        """,
        f"""
        CREATE FUNCTION {name}_keeps_key() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE foreign_key_violation USING
                TABLE = '{parent}', CONSTRAINT = '{name}',
                MESSAGE = '{parent}.{key} never changes: {child}.{column} names it';
        END $$
        """,
        f"""
        CREATE TRIGGER {name}_on_parents_key BEFORE UPDATE OF {key} ON {parent}
        FOR EACH ROW WHEN (OLD.{key} IS DISTINCT FROM NEW.{key}) EXECUTE FUNCTION {name}_keeps_key()
        """,
    )
