"""What was answered to a request that may be sent again."""

from __future__ import annotations

from sqlalchemy.orm import Mapped, mapped_column

from fleet_server.models.base import Base, Moment


class KeptAnswer(Base):
    """Of one `Idempotency-Key` of one actor. `answer` is sealed, None while the request is worked on under `lease`.

    It is written in the transaction of what the request did: without it, nothing was done.
    """

    __tablename__ = "kept_answer"

    actor: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    request_sha256: Mapped[str]
    lease: Mapped[str]
    begun_at: Mapped[Moment] = mapped_column(index=True)
    answer: Mapped[str | None]
