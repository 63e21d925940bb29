"""What all tables share: the metadata with its naming rule, whole-second UTC times, and column types for both databases."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from sqlalchemy import BigInteger, DateTime, Dialect, Integer, MetaData, SmallInteger
from sqlalchemy.orm import DeclarativeBase, mapped_column
from sqlalchemy.types import TypeDecorator, TypeEngine


class UtcSeconds(TypeDecorator[datetime]):
    """A moment to the second: `timestamptz` on PostgreSQL, INTEGER seconds since 1970 on SQLite; aware UTC in Python."""

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(DateTime(timezone=True))
        return dialect.type_descriptor(Integer())

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without its time zone cannot be stored")
        seconds = int(value.timestamp() // 1)
        return datetime.fromtimestamp(seconds, UTC) if dialect.name == "postgresql" else seconds

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if dialect.name == "postgresql":
            return value.astimezone(UTC)  # type: ignore[no-any-return] # a driver's value is Any
        return datetime.fromtimestamp(value, UTC)

    def coerce_compared_value(self, op: Any, value: Any) -> Any:
        return self


class Base(DeclarativeBase):
    """All tables."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_N_label)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


ONCE_A_STATEMENT = {"checked": "once a statement"}
"""Mark of the foreign keys that PostgreSQL checks by triggers of our own, once for each statement (decision 0051)."""

# SQLite numbers rows by itself only when the key's type is exactly INTEGER.
_BIG_KEY = BigInteger().with_variant(Integer(), "sqlite")

Key = Annotated[int, mapped_column(Integer, primary_key=True)]
BigKey = Annotated[int, mapped_column(_BIG_KEY, primary_key=True)]
Big = Annotated[int, mapped_column(BigInteger)]
Small = Annotated[int, mapped_column(SmallInteger)]
Moment = Annotated[datetime, mapped_column(UtcSeconds)]
