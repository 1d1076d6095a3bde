"""The API keys of a server, from flags, a file and the environment."""

from __future__ import annotations

from pathlib import Path

from quire import env
from quire.server.args import ServerArgs


def all_keys(args: ServerArgs) -> list[str]:
    """All API keys; without any, requests need none."""
    keys = [key for key in args.api_key if key]
    if not keys and env.API_KEY.get():  # a flag overrides the environment
        keys.append(env.API_KEY.get())
    if args.api_key_file is not None:
        keys += _read(args.api_key_file)
    if args.api_key and not keys:
        raise ValueError("--api-key is empty, which would leave the server open; give a key")
    for number, key in enumerate(keys, start=1):
        if not (key.isascii() and key.isprintable()) or " " in key:
            raise ValueError(
                f"API key number {number} has characters that headers cannot carry; use printable "
                "ASCII without spaces"
            )
    return list(dict.fromkeys(keys))


def _read(name: str) -> list[str]:
    try:
        text = Path(name).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise ValueError(f"--api-key-file {name} cannot be read: {reason}") from error
    lines = (line.strip() for line in text.splitlines())
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys:
        raise ValueError(f"--api-key-file {name} holds no key; write one key per line")
    return keys
