"""A small table of fake components, and a command that runs the stack on it.

`python -m tests.integration.compose.fake up|down STATE BASE [NAME=WORDS ...]`
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from compose.events import GOOD, Event
from compose.model import Component, Finished, Http, Metrics, Var
from compose.native import Stack

SERVER = Path(__file__).with_name("fake_server.py")


def server(
    name: str, port: int, words: str = "", needs: tuple[str, ...] = (), uses: tuple[str, ...] = ()
) -> Component:
    """A component that is the fake server with these words on its command line."""
    return Component(
        name=name,
        program="python",
        about=f"fake {name}",
        ready=Http("http", "/"),
        arguments=(str(SERVER), f"{{{name}.http}}", *words.split()),
        ports=MappingProxyType({"http": port}),
        needs=needs,
        uses=uses,
        environment=(Var("FAKE", "1"),),
        endpoints=MappingProxyType({name: f"http://{{host}}:{{{name}.http}}"}),
        show=name,
        metrics=Metrics("http", f"fake-{name}"),
        start_seconds=20,
        stop_seconds=1.0 if "stubborn" in words else 10.0,
    )


def table(base: int, words: Mapping[str, str] = MappingProxyType({})) -> tuple[Component, ...]:
    """Four components: `store`, the one-shot `prepare` and `app` upon it, and `side`, which needs nobody."""
    once = Component(
        name="prepare",
        program="python",
        about="one-shot",
        ready=Finished(),
        arguments=("-c", words.get("prepare", "print('prepared')")),
        needs=("store",),
    )
    return (
        server("store", base, words.get("store", "")),
        once,
        server("app", base + 1, words.get("app", ""), needs=("prepare",), uses=("side",)),
        server("side", base + 2, words.get("side", "")),
    )


def main() -> int:
    what, state, base, *words = sys.argv[1:]

    def say(event: Event) -> None:
        sys.stdout.write(f"{event.component or '-'} {event.phase or ''} {event.text}\n")
        sys.stdout.flush()

    components = table(int(base), dict(word.split("=", 1) for word in words))
    stack = Stack(Path(state), table=components, report=say)
    if what == "down":
        stack.down()
        return 0
    return 0 if all(phase in GOOD for phase, _ in stack.up().values()) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
