"""What nft can say between two quotes: comments, with the digests that end them, and names of links.

What is said is not known here. Syntax: nft(8), LEXICAL CONVENTIONS.
"""

from __future__ import annotations

import re
from hashlib import blake2s

# Longest comment that nft 1.0.6 takes on any noun (NFTNL_UDATA_COMMENT_MAXLEN, with its NUL).
_COMMENT_LIMIT = 127
_LINK = re.compile(r"[!#-)+-\[\]-~]{1,15}")  # printable, without quote, asterisk and backslash
_COMMENT_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 ./:_-,()#=@'")


def comment_text(text: str) -> str:
    """Make any text a comment: what could end nft's string, or is not printable ASCII, becomes ``?``; cut to size.

    nft strings have no escapes (nft(8), LEXICAL CONVENTIONS), so there is nothing better to do with a quote.
    """
    return "".join(letter if letter in _COMMENT_CHARACTERS else "?" for letter in text[: _COMMENT_LIMIT - 10])


def is_link(name: str) -> bool:
    """True if nft can say the name of a link, in quotes: a quote would end its string, and ``*`` mean any end."""
    return bool(_LINK.fullmatch(name))


def digest(text: str) -> str:
    """Eight hexadecimal digits that stand for a noun's text.

    The kernel gives rules back as expressions, and their text differs between versions of nft. So each of our rules
    and sets carries the digest of its text as the end of its comment: what is in the kernel is ours, and current,
    if the digests are.
    """
    return blake2s(text.encode(), digest_size=4).hexdigest()
