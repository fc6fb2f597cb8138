"""A service without ASGI: a store, and its health on core's listener. Its arguments are the URL and what its loop does.

It prints the URL of the listener before it opens the store, and ``open`` after that. Then it reads commands from its standard
input: ``block SECONDS`` blocks the event loop, and ``busy SECONDS`` keeps it busy with short callbacks.
"""

from __future__ import annotations

import asyncio
import sys
import time

from eventcore import open_store
from eventcore.health import HealthListener, HealthSettings


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


async def main(url: str, open_timeout: float, dead_after: float) -> None:
    settings = HealthSettings(keep=0.2, interval=0.5, dead_after=dead_after)
    store = open_store(url, exporters="none", open_timeout=open_timeout, health=settings)
    with HealthListener(store, port=0) as listener:
        say(listener.url)
        async with store:
            say("open")
            while line := await asyncio.to_thread(sys.stdin.readline):
                what, _, seconds = line.strip().partition(" ")
                if what == "block":
                    time.sleep(float(seconds))  # noqa: ASYNC251  # that is the point
                elif what == "busy":
                    end = time.monotonic() + float(seconds)
                    while time.monotonic() < end:
                        time.sleep(0.03)  # noqa: ASYNC251  # one callback after the other
                        await asyncio.sleep(0)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2]), float(sys.argv[3])))
