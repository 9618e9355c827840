"""What a data set is, as one short string."""

import hashlib
import json
from typing import Any


def compute_fingerprint(**facts: Any) -> str:
    """16 hex digits of the SHA-256 of the facts, whatever their order."""
    text = json.dumps(facts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
