"""A tiny server: `fake_server.py PORT [delay=SECONDS] [exit=CODE] [stubborn] [child]`."""

import http.server
import os
import signal
import subprocess
import sys
import threading
import time


def main() -> None:
    port, *words = sys.argv[1:]
    options = {name: value for name, _, value in (word.partition("=") for word in words)}
    print("fake server starts", flush=True)
    if "stubborn" in options:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "child" in options:
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    if "exit" in options:
        print("ValueError: the reason why it cannot run", flush=True)
        sys.exit(int(options["exit"]))
    born = time.monotonic()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            late = time.monotonic() - born < float(options.get("delay", 0))
            self.send_response(503 if late else 200)
            self.end_headers()
            self.wfile.write(str(os.getpid()).encode())

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", int(port)), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    signal.sigwait({signal.SIGINT} if "stubborn" in options else {signal.SIGTERM, signal.SIGINT})


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    if "stubborn" not in sys.argv:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    main()
