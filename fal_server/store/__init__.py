"""The controller's persistent data: a database, a vault for secrets, and blobs. Store and LogStore use the database."""

from __future__ import annotations

from fal_server.store.crypto.master_key import load_master_key
from fal_server.store.crypto.vault import AesVault
from fal_server.store.files.blobs import FileBlobs
from fal_server.store.sql.logs import SqlLogStore
from fal_server.store.sql.opening import open_store
from fal_server.store.sql.store import SqlStore

__all__ = ["AesVault", "FileBlobs", "SqlLogStore", "SqlStore", "load_master_key", "open_store"]
