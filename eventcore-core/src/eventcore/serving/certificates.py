"""The TLS of a listener: certificates that are read again when their files change."""

from __future__ import annotations

import logging
import os
import ssl
import threading
from typing import final

from eventcore.ground import describe_error
from eventcore.serving.access import Access, revealed


@final
class Certificates:
    """Makes the TLS context of a listener from the files that ``access`` names.

    Raises:
        OSError: a file cannot be read, or is not what it should be; the message says which.
    """

    def __init__(self, access: Access, logger: logging.Logger) -> None:
        self._access = access
        self._logger = logger
        self._lock = threading.Lock()
        self._seen = self._signature()
        try:
            self._context = _load(access)
        except (OSError, ValueError) as error:
            raise OSError(f"cannot speak TLS with {_files(access)}: {_problem(error)}") from error

    def current(self) -> ssl.SSLContext:
        """The context for a new connection.

        Files that have changed are read again. When they do not fit each other, for example because the
        key is not written yet, the earlier ones stay in use, and the next change is tried.
        """
        with self._lock:
            signature = self._signature()
            if signature != self._seen:
                self._seen = signature
                try:
                    self._context = _load(self._access)
                except (OSError, ValueError) as error:
                    self._logger.warning("%s changed and cannot be used: %s", _files(self._access), _problem(error))
                else:
                    self._logger.info("read again: %s", _files(self._access))
            return self._context

    def _signature(self) -> tuple[object, ...]:
        found: list[object] = []
        for path in _paths(self._access):
            try:
                status = os.stat(path)
                found.append((status.st_ino, status.st_size, status.st_mtime_ns))
            except OSError as error:
                found.append(error.errno)
        return tuple(found)


def _load(access: Access) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    password = access.key_password
    assert access.certificate is not None
    # With a function, OpenSSL never asks for the password at the terminal.
    context.load_cert_chain(access.certificate, access.key, lambda: revealed(password) if password is not None else "")
    if access.client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(access.client_ca)
    return context


def _paths(access: Access) -> list[str]:
    return [path for path in (access.certificate, access.key, access.client_ca) if path is not None]


def _files(access: Access) -> str:
    return ", ".join(_paths(access))


def _problem(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return f"{describe_error(error)} (expected PEM files, and a key that fits the certificate and its password)"
    return describe_error(error)
