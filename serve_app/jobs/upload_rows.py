"""Resumable uploads: how far each one is."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row, delete, func, or_, select, update

from serve_app.core.job_errors import TooManyUploads, UploadConflict, UploadNotFound
from serve_app.jobs.database import Transaction
from serve_app.jobs.records import ResumableUpload
from serve_app.jobs.rows import StorePart, is_id, lock_key
from serve_app.jobs.schema import uploads


class Uploads(StorePart):
    """The recordings that arrive in parts."""

    async def create_upload(self, upload: ResumableUpload, max_open: int) -> None:
        async with self._database.write() as transaction:
            # Uploads of a key are counted one after the other.
            await lock_key(transaction, upload.key)
            query = select(func.count()).where(
                uploads.c.key == upload.key,
                uploads.c.job_id.is_(None),
                uploads.c.expires_at > transaction.now,
            )
            if (await transaction.run(query)).scalar_one() >= max_open:
                raise TooManyUploads(max_open)
            statement = transaction.insert(uploads).values(
                id=upload.id,
                key=upload.key,
                length_bytes=upload.length_bytes,
                offset_bytes=upload.offset_bytes,
                parts=list(upload.parts),
                metadata=dict(upload.metadata),
                expires_at=upload.expires_at,
            )
            # It exists if this is called again after an answer was lost.
            await transaction.change(statement.on_conflict_do_nothing())

    async def get_upload(self, key: str, upload_id: str) -> ResumableUpload:
        if not is_id(upload_id):
            raise UploadNotFound(upload_id)
        query = select(uploads).where(
            uploads.c.id == upload_id,
            uploads.c.key == key,
            or_(uploads.c.job_id.is_not(None), uploads.c.expires_at > self._database.now()),
        )
        row = (await self._database.read(query)).one_or_none()
        if row is None:
            raise UploadNotFound(upload_id)
        return _upload(row)

    async def add_part(
        self, key: str, upload_id: str, offset_bytes: int, num_bytes: int
    ) -> ResumableUpload:
        async with self._database.write() as transaction:
            row = await locked_upload(transaction, key, upload_id)
            upload = _upload(row)
            end_bytes = offset_bytes + num_bytes
            if offset_bytes != upload.offset_bytes or end_bytes > upload.length_bytes:
                raise UploadConflict(upload.offset_bytes)
            parts = (*upload.parts, num_bytes)
            await transaction.change(
                update(uploads)
                .where(uploads.c.id == upload_id)
                .values(offset_bytes=end_bytes, parts=list(parts))
            )
            return ResumableUpload(
                upload.id,
                upload.key,
                upload.length_bytes,
                end_bytes,
                parts,
                upload.metadata,
                upload.expires_at,
            )

    async def delete_upload(self, key: str, upload_id: str) -> None:
        async with self._database.write() as transaction:
            await locked_upload(transaction, key, upload_id)
            await transaction.change(delete(uploads).where(uploads.c.id == upload_id))


async def locked_upload(transaction: Transaction, key: str, upload_id: str) -> Row[Any]:
    """Returns an upload that no job has taken, locked until the end of the transaction.

    Raises:
        UploadNotFound: the key has no such upload, it has expired, or a job has taken it.
    """
    if not is_id(upload_id):
        raise UploadNotFound(upload_id)
    query = select(uploads).where(
        uploads.c.id == upload_id,
        uploads.c.key == key,
        uploads.c.job_id.is_(None),
        uploads.c.expires_at > transaction.now,
    )
    row = (await transaction.run(query.with_for_update())).one_or_none()
    if row is None:
        raise UploadNotFound(upload_id)
    return row


def _upload(row: Row[Any]) -> ResumableUpload:
    return ResumableUpload(
        row.id,
        row.key,
        row.length_bytes,
        row.offset_bytes,
        tuple(row.parts),
        row._mapping["metadata"],
        row.expires_at,
    )
