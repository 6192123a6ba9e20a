"""`python -m service.infra.cache clear`: forget every entry, for when the database's content was exchanged.

Pending values of write-behind, marks and counts stay. Safe at any time: what is asked for is loaded again.
"""

import argparse
import asyncio
import sys

from redis.exceptions import RedisError

from service.infra.cache.redis import CLOCK
from service.infra.redis import glob_escape, open_redis
from service.settings import Settings, SettingsError, load_settings

EX_CONFIG = 78
_BATCH = 500


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m service.infra.cache", description=__doc__)
    parser.add_argument("command", choices=["clear"])
    parser.parse_args()
    try:
        settings = load_settings()
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return EX_CONFIG
    try:
        cleared = asyncio.run(clear(settings))
    except (RedisError, OSError) as error:
        sys.stderr.write(f"clear failed: {type(error).__name__}: {error}\n")
        return 1
    sys.stdout.write(f"{cleared} entries forgotten\n")
    return 0


async def clear(settings: Settings) -> int:
    """Forget every entry of every domain; how many there were."""
    entries = glob_escape(settings.redis.key_prefix + CLOCK.removesuffix("clock")) + "e:*"
    redis = open_redis(settings.redis, name="yardstick-cache-clear")
    cleared = 0
    try:
        names: list[bytes] = []
        async for name in redis.scan_iter(match=entries, count=_BATCH):
            names.append(name)
            if len(names) >= _BATCH:
                cleared += await redis.unlink(*names)
                names.clear()
        if names:
            cleared += await redis.unlink(*names)
    finally:
        await redis.aclose()
    return cleared


if __name__ == "__main__":
    sys.exit(main())
