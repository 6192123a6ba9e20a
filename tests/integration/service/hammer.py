"""One process that asks for a window as fast as it can: `hammer.py <redis url> <rate> <attempts> <seconds>`.

Writes a line per admitted request: the wall clock (nanoseconds) before and after. It is the server's clock
too, both being on this machine, and windows slide by it: where it is stepped, they step with it.
"""

import asyncio
import sys
import time

from redis.asyncio import Redis

from service.infra.rate_limit.interface import Window
from service.infra.rate_limit.redis import RedisRateLimiter
from service.settings import Rate


async def main(url: str, rate: str, attempts: int, seconds: float) -> None:
    redis = Redis.from_url(url)
    limiter = RedisRateLimiter(redis, prefix="t:rate:")
    window = Window("ip:203.0.113.9", Rate.parse(rate))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    end = time.monotonic() + seconds
    for _ in range(attempts):
        if time.monotonic() > end:
            break
        before = time.time_ns()
        if (await limiter.hit([window])).allowed:
            sys.stdout.write(f"{before} {time.time_ns()}\n")
    await redis.aclose()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))
