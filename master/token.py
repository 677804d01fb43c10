"""The join token: made once, kept in the data directory, readable by its owner only."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from wire.errors import EnvironmentFault

TOKEN_CHARS_MIN = 8
TOKEN_BYTES = 18


def token_path(data_dir: Path) -> Path:
    """Where `master up` keeps the token that it makes."""
    return data_dir / "token"


def read_token(path: Path) -> str:
    """The token in a file: its first line, stripped."""
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise EnvironmentFault(
            "token_unreadable", f"can't read the join token from {path}: {error}"
        ) from error
    if len(text) < TOKEN_CHARS_MIN or "\n" in text:
        raise EnvironmentFault(
            "token_unusable",
            f"{path} holds {len(text)} characters; a join token is one line of at least "
            f"{TOKEN_CHARS_MIN}. Remove the file and start again to have one made",
        )
    return text


def ensure_token(path: Path, given: str = "") -> str:
    """Read the token at `path`, or put one there that only its owner can read.

    The one put there is `given` (the environment's `LOOKOUT_TOKEN`) or a new
    one. Raises `EnvironmentFault` if `given` is not the one that is there.
    """
    if path.exists():
        return _same(read_token(path), given, path)
    token = given or secrets.token_urlsafe(TOKEN_BYTES)
    if len(token) < TOKEN_CHARS_MIN:
        raise EnvironmentFault(
            "token_unusable",
            f"LOOKOUT_TOKEN has {len(token)} characters; give at least {TOKEN_CHARS_MIN}",
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _same(read_token(path), given, path)
    except OSError as error:
        raise EnvironmentFault(
            "token_unwritable", f"can't keep the join token at {path}: {error}"
        ) from error
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(token + "\n")
        file.flush()
        os.fsync(file.fileno())
    return token


def _same(token: str, given: str, path: Path) -> str:
    if given and given != token:
        raise EnvironmentFault(
            "token_differs",
            f"LOOKOUT_TOKEN is not the token in {path}; unset it, or remove the file to change "
            "the token (joined workers need the new one)",
        )
    return token
