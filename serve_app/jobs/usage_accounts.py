"""How much audio each key has used in each month."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select

from serve_app.jobs.database import Transaction
from serve_app.jobs.records import Usage
from serve_app.jobs.rows import StorePart
from serve_app.jobs.schema import usage as usage_table


class UsageAccounts(StorePart):
    """What keys have used."""

    async def add_usage(self, usage: Sequence[Usage]) -> None:
        if not usage:
            return
        async with self._database.write() as transaction:
            await add_usage(transaction, usage)

    async def usage(self, month: str, key: str | None = None) -> Sequence[Usage]:
        query = select(usage_table).where(usage_table.c.month == month)
        if key is not None:
            query = query.where(usage_table.c.key == key)
        rows = await self._database.read(query.order_by(usage_table.c.key, usage_table.c.kind))
        return [
            Usage(row.key, row.month, row.kind, row.audio_s, row.num_requests) for row in rows.all()
        ]


async def add_usage(transaction: Transaction, usage: Sequence[Usage]) -> None:
    """Adds to the accounts, always in the same order: otherwise two could wait for each other."""
    for entry in sorted(usage, key=lambda entry: (entry.month, entry.key, entry.kind)):
        statement = transaction.insert(usage_table).values(
            month=entry.month,
            key=entry.key,
            kind=entry.kind,
            audio_s=entry.audio_s,
            num_requests=entry.num_requests,
        )
        added = statement.excluded
        await transaction.change(
            statement.on_conflict_do_update(
                index_elements=[usage_table.c.month, usage_table.c.key, usage_table.c.kind],
                set_={
                    "audio_s": usage_table.c.audio_s + added.audio_s,
                    "num_requests": usage_table.c.num_requests + added.num_requests,
                },
            )
        )
