"""What the controller keeps: the database behind Store and LogStore, the vault for secrets, the blobs."""

from __future__ import annotations

from fal_server.store.blobs import FileBlobs
from fal_server.store.logs import SqlLogStore
from fal_server.store.master_key import load_master_key
from fal_server.store.opening import open_store
from fal_server.store.store import SqlStore
from fal_server.store.vault import AesVault

__all__ = ["AesVault", "FileBlobs", "SqlLogStore", "SqlStore", "load_master_key", "open_store"]
