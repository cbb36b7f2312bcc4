"""Object storage: any S3 server, through the minio SDK. For components and the command line; stages know none of it."""

from resprout.storage.checkpoint import ObjectCheckpoint
from resprout.storage.client import ObjectAddress, ObjectFacts, Storage
from resprout.storage.publishing import Publication, fetch, find, publish, published
from resprout.storage.settings import StorageSettings, from_environment

__all__ = [
    "ObjectAddress",
    "ObjectCheckpoint",
    "ObjectFacts",
    "Publication",
    "Storage",
    "StorageSettings",
    "fetch",
    "find",
    "from_environment",
    "publish",
    "published",
]
