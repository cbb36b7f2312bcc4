"""What fetches from object storage, which the core does not know."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from resprout.progress import Report

Stored = Callable[[str, Path, Report], Path]
"""Fetches what lies at an s3:// address into a folder, and says which file or folder it is."""
