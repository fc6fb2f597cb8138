"""``eventcore health``: asks a running service, or a store, how it does; for probes of containers."""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
from collections.abc import Mapping
from time import monotonic
from typing import Any, Final, final
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

import msgspec

from eventcore.cli.output import Output
from eventcore.cli.parsing import add_command, add_timeout
from eventcore.cli.projections import UnusableStore, check_url
from eventcore.errors import EventCoreError, InvalidInput, InvalidStoreUrl, MissingDependency
from eventcore.ground import describe_error
from eventcore.health import CheckResult, Health, HealthSettings
from eventcore.health.values import without_secrets
from eventcore.store import open_store

_EPILOG: Final = """\
exit codes:
  0  healthy or degraded; with /readyz: ready, with /livez: live
  1  unhealthy, not ready, not live, or no answer in time
  2  the URL or the command line is wrong, or a package is missing
"""
_TOKEN_VARIABLE: Final = "EVENTCORE_HEALTH_TOKEN"  # noqa: S105  # the name of a variable
_ENDPOINTS: Final = ("livez", "readyz", "healthz")
_WEB: Final = ("http", "https")
_MOST_BYTES: Final = 1 << 20
_NOT_FOUND: Final = 404
_UNAUTHORIZED: Final = 401
# Seconds between two looks at projections: longer than a runner waits before it takes a free lease.
_BETWEEN_LOOKS: Final = 1.5
_ONE_LOOK: Final = HealthSettings(keep=0.0, interval=60.0, nobody_after=1.0)


@final
class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The output of ``eventcore health --json``. With the status ``unknown``, it is only why there is no answer."""

    ok: bool = False
    message: str = ""
    status: str = "unknown"
    checks: dict[str, CheckResult] = {}


class _NoRedirect(HTTPRedirectHandler):
    """A redirect is no answer of a service about its health."""

    def redirect_request(self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: Any) -> None:
        return None


def add_health(commands: Any) -> None:
    """Add the command to the parsers of ``eventcore``."""
    parser = add_command(commands, "health", _health, "ask a service or a store how it does", _EPILOG)
    parser.add_argument("url", help="http://HOST:PORT/readyz of a service, or the URL of a store")
    parser.add_argument(
        "--token",
        help=f"access token of the service; better in {_TOKEN_VARIABLE}, which other users cannot see",
    )
    add_timeout(parser)


def _health(output: Output, options: argparse.Namespace) -> int:
    """Ask a running service for its health: the URL of its health endpoint, such as http://127.0.0.1:8086/readyz. Without a
    path, /healthz is asked, and below a path where an application is mounted, too; a user and a password in the URL are sent,
    or the access token of --token or EVENTCORE_HEALTH_TOKEN. Or open the store of a URL (it must exist), and check
    it: its projections must be running, but nothing is known of the processes that use it.

    Each check that is not healthy is printed with its reason. As a probe of a container:
    HEALTHCHECK CMD ["eventcore", "health", "http://127.0.0.1:8086/livez", "--timeout", "2"]

    JSON (--json):
      {"version": 1, "ok", "error", "message": text, "status": "healthy" | "degraded" | "unhealthy",
       "checks": {name: {"status", "reason", "since", "figures", "essential"}}}
    """
    url: str = options.url
    try:
        if urlsplit(url).scheme in _WEB:
            answer = _of_service(url, options.timeout, options.token or os.environ.get(_TOKEN_VARIABLE, ""))
        else:
            answer = asyncio.run(_of_store(url, options.timeout))
    except (UnusableStore, InvalidInput, MissingDependency, ValueError) as error:
        message = without_secrets(str(error))
        if isinstance(error, InvalidStoreUrl) and "://" not in url:
            message = f"{message}; or, for a running service, http://HOST:PORT/readyz"
        return output.fail(2, message)
    if answer.status == "unknown":
        return output.fail(1, answer.message)
    return output.answer(int(not answer.ok), answer, lambda: _print(output, answer))


def _print(output: Output, answer: Answer) -> None:
    output.line(answer.message or answer.status)
    for name, check in answer.checks.items():
        if check.status != "healthy":
            output.line(f"  {check.status}: {name}: {check.reason}")


def _of_service(url: str, timeout: float, token: str) -> Answer:
    parts = urlsplit(url)
    if not parts.hostname:
        raise InvalidStoreUrl(f"{url!r:.80} names no host; expected http://HOST:PORT/readyz")
    netloc = parts.netloc.rpartition("@")[2]
    asked = parts._replace(netloc=netloc, path=parts.path if parts.path not in ("", "/") else "/healthz").geturl()
    headers = {"Accept": "application/json"}
    if token:
        if not (token.isascii() and token.isprintable()):
            raise InvalidInput("the access token has characters that no header can have; expected printable ASCII")
        headers["Authorization"] = f"Bearer {token}"
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
    until = monotonic() + timeout
    answer, is_other_page = _ask(asked, headers, timeout)
    path = urlsplit(asked).path.rstrip("/")
    if not is_other_page or path.rpartition("/")[2] in _ENDPOINTS:
        return answer
    # Where the application is mounted there is its page, or a redirect to it.
    below = urlsplit(asked)._replace(path=f"{path}/healthz").geturl()
    found, _ = _ask(below, headers, max(until - monotonic(), 0.1))
    return found if found.status != "unknown" else answer


def _ask(asked: str, headers: Mapping[str, str], timeout: float) -> tuple[Answer, bool]:
    """The answer of a URL, and whether it may be that of another page of the service."""
    # Without the proxy of the environment: a probe asks the process itself.
    opener = build_opener(ProxyHandler({}), _NoRedirect())
    try:
        try:
            with opener.open(Request(asked, headers=dict(headers)), timeout=timeout) as found:  # noqa: S310  # checked
                status, body = found.status, found.read(_MOST_BYTES)
        except HTTPError as error:
            with error:
                status, body = error.code, error.read(_MOST_BYTES)
    except (OSError, URLError) as error:
        reason = error.reason if isinstance(error, URLError) else error
        return Answer(message=f"no answer from {asked}: {reason}"), False
    try:
        found = msgspec.convert(json.loads(body), type=_Body)
    except (ValueError, msgspec.ValidationError):
        wanted = f"; it wants a password in the URL, or a token in {_TOKEN_VARIABLE}" if status == _UNAUTHORIZED else ""
        mounted = urlsplit(asked)._replace(path="/health", query="", fragment="").geturl()
        if status == _NOT_FOUND and asked != mounted:
            wanted = f"; give the path where the service has mounted its health, such as {mounted}"
        message = f"{asked} answered {status}, and not with the health of a store{wanted}"
        return Answer(message=message), status != _UNAUTHORIZED
    return Answer(ok=status == 200, status=found.status, checks=found.checks, message=_message(found, status)), False


class _Body(msgspec.Struct):
    """What the endpoints answer, as far as it is shown."""

    status: str
    checks: dict[str, CheckResult] = {}
    ready: bool | None = None
    draining: bool = False


def _message(body: _Body, status: int) -> str:
    if body.draining:
        return f"{body.status}, draining"
    if body.ready is not None and not body.ready:
        return f"{body.status}, not ready"
    return body.status if status == 200 else f"{body.status} ({status})"


async def _of_store(url: str, timeout: float) -> Answer:
    check_url(url)
    try:
        async with (
            asyncio.timeout(timeout),
            open_store(url, exporters="none", config={}, migrate=False, health=_ONE_LOOK) as store,
        ):
            health = await store.health(timeout)
            if any(name.startswith("projection:") for name in health.checks):
                # A lease may pass from one runner to the next. If no runner takes it meanwhile, no process runs the projection.
                await asyncio.sleep(_BETWEEN_LOOKS)
                health = await store.health(timeout)
            return _from(health)
    except InvalidInput:
        raise
    except TimeoutError:
        return Answer(message=f"no answer within {timeout:g} s")
    except EventCoreError as error:
        return Answer(message=without_secrets(describe_error(error)))


def _from(health: Health) -> Answer:
    return Answer(ok=health.status != "unhealthy", status=health.status, checks=dict(health.checks))
