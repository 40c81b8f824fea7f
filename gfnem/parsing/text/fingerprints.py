"""Words and documents as numbers that need no vocabulary."""

from __future__ import annotations

import hashlib

#: words remembered; beyond that all are forgotten, and looked up anew
_MOST = 2_000_000
_known: dict[str, int] = {}


def fingerprint(text: str) -> int:
    """A number of 63 bits, the same in every process; never 0, which stands for nothing known."""
    key = _known.get(text)
    if key is None:
        if len(_known) >= _MOST:
            _known.clear()
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        key = _known[text] = (int.from_bytes(digest, "big") >> 1) or 1
    return key
