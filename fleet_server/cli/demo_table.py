"""The live table of `fleet demo`: nodes and counters while they catch up."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text
from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker

from fleet_server.models import Node, NodeStatus, Observation, Pack

_SHOWN_NODES = 16


class DemoTable:
    """Shown on a terminal only; otherwise does nothing."""

    def __init__(self, sessions: sessionmaker[Session], *, enabled: bool) -> None:
        self._sessions = sessions
        self._live = Live(console=Console(stderr=True), refresh_per_second=4) if enabled else None

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live:
            self._live.stop()

    def show(self, progress: Mapping[str, Any]) -> None:
        """Draw what the boards say beside what the server has stored."""
        if self._live:
            self._live.update(Group(self._counters(progress), self._nodes()))

    def _counters(self, progress: Mapping[str, Any]) -> Text:
        with self._sessions() as session:
            packs = session.scalar(select(func.count()).select_from(Pack))
            observations = session.scalar(
                select(func.count()).where(Observation.pack_id.is_not(None))
            )
        reached = datetime.fromtimestamp(progress.get("sim_utc_s_min", 0), UTC)
        return Text(
            f"{progress.get('caught_up', 0)} of {progress.get('nodes', 0)} nodes caught up · "
            f"nodes' time {reached:%Y-%m-%d %H:%M} UTC · {progress.get('boots', 0)} boots · "
            f"{progress.get('packs_written', 0)} packs written, {packs} stored · "
            f"{observations} observations",
            style="bold",
        )

    def _nodes(self) -> Table:
        table = Table(box=None, pad_edge=False)
        for title in ("node", "label", "model", "version", "last sample (UTC)", "spool", "battery"):
            table.add_column(title, justify="right" if title in ("spool", "battery") else "left")
        with self._sessions() as session:
            rows = session.execute(
                select(Node, NodeStatus)
                .join(NodeStatus, NodeStatus.node_id == Node.node_id)
                .order_by(Node.label)
                .limit(_SHOWN_NODES)
            )
            for node, status in rows:
                sampled = status.last_sampled_at
                table.add_row(
                    node.node_id,
                    node.label,
                    node.model,
                    status.version or "–",
                    f"{sampled:%Y-%m-%d %H:%M}" if sampled else "–",
                    "–" if status.spool_depth is None else str(status.spool_depth),
                    "–" if status.battery_mv is None else f"{status.battery_mv} mV",
                )
        return table
