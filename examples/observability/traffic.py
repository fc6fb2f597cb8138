"""Traffic for the service: ``python -m examples.observability.traffic http://127.0.0.1:8000 --rate 20``.

Each flight that left New York in 2013 pays its destination: an airport that has been paid too little for its own flights is
refused, as a bank refuses. Every tenth flight pays in at its origin. So there are deposits, transfers, refusals and conflicts.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import uuid
from collections import Counter
from collections.abc import Iterator
from typing import Final

import httpx

from examples.flights.data import Flight, Schedule, find_data

_CLIENTS: Final = 8
# Every request is sent again with the same key until it is answered, so each is executed once.
_AGAIN: Final = frozenset({503, 504})


def _requests(flights: Iterator[Flight]) -> Iterator[tuple[str, dict[str, object], str]]:
    # Another run sends other commands, and does not repeat these.
    run = uuid.uuid4().hex[:8]
    for number, flight in enumerate(flights):
        if number % 10 == 0:
            yield f"/accounts/{flight.origin}/deposits", {"amount": 500}, f"{run}-in-{number}"
        yield (
            "/transfers",
            {"source": flight.origin, "target": flight.destination, "amount": 40 + number % 60},
            f"{run}-out-{number}",
        )


async def send(url: str, rate: float, seconds: float | None = None) -> Counter[str]:
    """Send ``rate`` requests a second for ``seconds``, or until cancelled, and count the answers by status.

    A service that does not answer is asked again: the traffic outlives every outage.
    """
    schedule = await asyncio.to_thread(lambda: Schedule(find_data()))
    flights = (flight for day in itertools.cycle(schedule.days) for flight in schedule.flights(day))
    requests, answers = _requests(flights), Counter[str]()
    clock = asyncio.get_running_loop().time
    end = None if seconds is None else clock() + seconds

    async def client(web: httpx.AsyncClient, offset: float) -> None:
        due = clock() + offset
        while end is None or clock() < end:
            path, body, key = next(requests)
            answers[await _send_one(web, path, body, key)] += 1
            due = max(due + _CLIENTS / rate, clock())
            await asyncio.sleep(due - clock())

    # A connection a request, as many people make them: otherwise one worker may get all requests.
    limits = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=url, timeout=10, limits=limits) as web, asyncio.TaskGroup() as group:
        for number in range(_CLIENTS):
            group.create_task(client(web, number / rate))
    return answers


async def _send_one(web: httpx.AsyncClient, path: str, body: dict[str, object], key: str) -> str:
    for _ in range(20):
        try:
            answer = await web.post(path, json=body, headers={"Idempotency-Key": key})
        except httpx.TransportError:
            pass
        else:
            if answer.status_code not in _AGAIN:
                return str(answer.status_code)
        await asyncio.sleep(0.5)
    return "none"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.observability.traffic", description="Traffic for the service.")
    parser.add_argument("url", help="the address of the service")
    parser.add_argument("--rate", type=float, default=20.0, help="requests a second")
    parser.add_argument("--seconds", type=float, help="when to end; by default, at Ctrl-C")
    arguments = parser.parse_args()
    print(dict(asyncio.run(send(arguments.url, arguments.rate, arguments.seconds))))


if __name__ == "__main__":
    main()
