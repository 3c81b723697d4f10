"""The meanings of a dataclass's fields: the comments beside them in its source."""

from __future__ import annotations

import ast
import inspect
import io
import textwrap
import tokenize
from typing import Any


def meanings(cls: type[Any]) -> dict[str, str]:
    """Return, by field of `cls` and its bases, the comment at the end of its line, or right above it.

    A field without a comment, or whose source cannot be read, is not there.
    """
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__[:-1]):
        found |= _own(base)
    return found


def _own(cls: type[Any]) -> dict[str, str]:
    if not inspect.get_annotations(cls):  # such as typing.Protocol, whose file is long to read
        return {}
    try:
        source = textwrap.dedent(inspect.getsource(cls))
        body = ast.parse(source).body[0]
        tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    except (OSError, TypeError, SyntaxError, IndexError, tokenize.TokenError):  # no file, or not this one any more
        return {}
    comments = {token.start[0]: token.string.lstrip("#").strip() for token in tokens if token.type == tokenize.COMMENT}
    lines = source.splitlines()
    found = {}
    for node in body.body if isinstance(body, ast.ClassDef) else []:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            beside = range(node.lineno, (node.end_lineno or node.lineno) + 1)
            first = node.lineno
            while lines[first - 2].lstrip().startswith("#"):
                first -= 1
            said = [comments[line] for line in beside if line in comments]
            said = said or [comments[line] for line in range(first, node.lineno)]
            if said:
                found[node.target.id] = " ".join(said)
    return found
