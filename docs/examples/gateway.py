"""Any OpenAI client in any language: start `windlass up`, point `base_url` at it. Takes the `openai` package."""

import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from openai import NotFoundError, OpenAI

PASSAGES = "A pawl drops behind each tooth. It holds the load while nobody pushes.\n\nWhat holds the load?"


@contextmanager
def gateway() -> Iterator[str]:
    """`windlass up` on a free port of this machine while the block lasts; gives its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen([sys.executable, "-m", "windlass", "up", "--port", str(port)])
    try:
        wait_for(server, f"http://127.0.0.1:{port}/healthz")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.send_signal(signal.SIGINT)
        server.wait()


def wait_for(server: subprocess.Popen[bytes], url: str) -> None:
    """Return once `url` answers."""
    while server.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f"the server ended with exit code {server.returncode}")


with gateway() as url, OpenAI(base_url=f"{url}/v1", api_key="none") as client:
    raw = client.chat.completions.with_raw_response.create(
        model="auto", messages=[{"role": "user", "content": PASSAGES}]
    )
    print(raw.parse().choices[0].message.content)
    print("chosen by:", raw.headers["x-windlass-why"])

    print("streamed:")
    for chunk in client.chat.completions.create(
        model="auto", messages=[{"role": "user", "content": PASSAGES}], stream=True
    ):
        print(chunk.choices[0].delta.content or "", end="")
    print()

    try:
        client.chat.completions.create(model="nobody", messages=[{"role": "user", "content": "Hello"}])
    except NotFoundError as exc:
        print(f"refused: {exc.code}: {exc.message}")
