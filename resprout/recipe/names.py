"""What a run is called, made of what a file or a teacher is called."""

from __future__ import annotations

import re
import unicodedata

PATTERN = r"^[a-z0-9][a-z0-9._-]{0,62}$"
"""What a name may be."""


def name_made_of(text: str) -> str:
    """A name close to `text`: accents are left out, and - stands for whatever a name cannot hold."""
    plain = "".join(it for it in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(it))
    return re.sub(r"[^a-z0-9._-]+", "-", plain).strip("-._")[:63] or "unnamed"
