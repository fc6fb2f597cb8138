"""Fingerprints of commands: equal for equal commands in every process, and after a restart."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from eventcore.errors import InvalidCommand
from eventcore.events.stream_id import StreamId


def fingerprint(command: msgspec.Struct) -> str:
    """32 hexadecimal digits that depend on the name of the command's class and on its fields.

    Fields that have their default are left out, so that a release may add a field with a default: a command that was sent
    before the release and again after it has the same fingerprint.

    Raises:
        InvalidCommand: a field cannot be written as JSON.
    """
    cls = type(command)
    values = {
        field.name: value
        for field in msgspec.structs.fields(cls)
        if not _is_default(value := getattr(command, field.name), field)
    }
    try:
        # The encoder sorts sets and the keys of dictionaries: their order differs from process to process.
        text = _encode([cls.__name__, values])
    except Exception as error:
        raise InvalidCommand(
            f"{cls.__name__}: with an idempotency key, all fields of a command must have a form in JSON: {error}"
        ) from error
    # It loads OpenSSL, which only applications with idempotency keys need.
    from hashlib import sha256

    return sha256(text).hexdigest()[:32]


def _is_default(value: Any, field: msgspec.structs.FieldInfo) -> bool:
    if field.default is not msgspec.NODEFAULT:
        default = field.default
    elif field.default_factory is not msgspec.NODEFAULT:
        default = field.default_factory()
    else:
        return False
    return type(value) is type(default) and bool(value == default)


def _write(value: object) -> str:
    if isinstance(value, StreamId):
        return str(value)
    raise TypeError(f"values of type {type(value).__name__} have none")


_encode: Final = msgspec.json.Encoder(enc_hook=_write, order="deterministic").encode
