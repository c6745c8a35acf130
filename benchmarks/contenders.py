"""The gateways that benchmarks/gateway.py compares, each with as much on as it has: started, asked, stopped.

Windlass: `windlass up` with its defaults (ledger, bodies, dashboard) and a virtual key that has a budget and limits,
`auto` over five models by LinearThompson with the lexical features. LiteLLM: its proxy, one worker, spend logs and
callbacks off; master key, five deployments with enforced rate limits, no database, so no virtual keys and no record of
a call. TensorZero: the gateway in its Python package, one function of five variants drawn at random, without
observability; its keys and rate limits need a database, so it admits everybody.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks import load
from benchmarks.machine import Running, free_port
from benchmarks.peers import environment
from benchmarks.upstream import AT_ONCE

MODELS = tuple(f"m{number}" for number in range(1, 6))
LITELLM = ("litellm[proxy]==1.106.2",)  # 1.82.7 and 1.82.8 were compromised releases: never pin one of them
TENSORZERO = ("tensorzero==2026.6.0", "uvloop==0.23.0")
MASTER_KEY = "sk-benchmark-1f0c8e6a5b7d4932"
START_S = 120.0
CONNECT_S = 0.002
PRICES = "prompt_usd_per_million = {0}, completion_usd_per_million = {1}"
WORDS = "a pawl holds the wheel of the windlass while the crew rests, so that the anchor comes up and never down; "


@dataclass
class Contender:
    """One way to the upstream. `running` is None for the direct one."""

    name: str
    port: int
    path: str
    model: str
    headers: tuple[tuple[str, str], ...] = ()
    running: Running | None = None
    start_s: float = 0.0

    @property
    def pid(self) -> int:
        assert self.running is not None, "nobody runs between load and upstream"
        return self.running.pid

    def request(self, kilobytes: int, *, streamed: bool = False, at_once: bool = False) -> bytes:
        """A chat whose body has so many thousand bytes; at_once: the upstream answers it without a pause."""
        system = f"Answer briefly. {AT_ONCE}" if at_once else "Answer briefly."

        def body(said: str) -> bytes:
            turns = (("system", system), ("user", said), ("user", "Why does it turn only one way?"))
            messages = [{"role": role, "content": content} for role, content in turns]
            return json.dumps({"model": self.model, "stream": streamed, "messages": messages}).encode()

        missing = max(0, 1_000 * kilobytes - len(body("")))
        return load.request(self.port, self.path, body((WORDS * (missing // len(WORDS) + 1))[:missing]), self.headers)

    def stop(self) -> None:
        if self.running is not None:
            self.running.stop()


def direct(upstream: int) -> Contender:
    return Contender("direct", upstream, "/v1/chat/completions", "m1")


class Home:
    """A state folder of Windlass with one key, over one upstream.

    transport, policy (which chooses the model): of the settings, '' for the default.
    """

    def __init__(self, folder: Path, upstream: int, *, transport: str = "", policy: str = "", database_url: str = ""):
        folder.mkdir(parents=True)
        self.folder = folder
        models = ", ".join(
            f'{{ name = "{name}", {PRICES.format(number, 2 * number)} }}' for number, name in enumerate(MODELS, 1)
        )
        (folder / "windlass.toml").write_text(
            f'[[providers]]\nname = "upstream"\nbase_url = "http://127.0.0.1:{upstream}/v1"\nmodels = [{models}]\n'
            + (f'transport = "{transport}"\n' if transport else "")
            + '\n[memory]\nembedder = "off"\n'
            + (f'\n[points.model]\nmode = "live"\npolicy = "{policy}"\n' if policy else "")
            + '\n[[limits]]\nname = "all"\nwindow = "month"\nusd = 1e6\ntokens = 1000000000000\n'
        )
        # With its bytecode kept, as an installation has it: compiling what was changed took 0.15 s of a start.
        unset = ("WINDLASS_", "PYTHONDONTWRITEBYTECODE")
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(unset)},
            "WINDLASS_CONFIG": str(folder / "windlass.toml"),
            "WINDLASS_HOME": str(folder / "state"),
            **({"WINDLASS_STORAGE__DATABASE_URL": database_url} if database_url else {}),
        }
        limits = ("--budget-usd", "1000000", "--window", "month", "--rpm", "100000000", "--concurrent", "10000")
        self.key = self._run("keys", "create", "app", *limits).split()[-1]

    def _run(self, *words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "windlass", *words],
            env=self.environment, capture_output=True, text=True, timeout=START_S, check=False,
        )  # fmt: skip
        if done.returncode:
            raise OSError(f"windlass {' '.join(words)} failed: {done.stderr[-800:]}")
        return done.stdout

    def up(self, name: str, on: Sequence[int], *more: str) -> Contender:
        """A running server, which has answered once."""
        port = free_port()
        command = [sys.executable, "-m", "windlass", "up", "--port", str(port), *more]
        made = Contender(name, port, "/v1/chat/completions", "auto", (("authorization", f"Bearer {self.key}"),))
        return started(made, command, on, self.folder / "up.log", self.environment)


def litellm(folder: Path, upstream: int, on: Sequence[int]) -> Contender:
    program = environment("litellm", LITELLM) / "litellm"
    config = folder / "litellm.yaml"
    config.write_text(
        json.dumps(  # YAML reads JSON
            {
                "model_list": [
                    {
                        "model_name": "auto",
                        "litellm_params": {
                            "model": f"openai/{name}",
                            "api_base": f"http://127.0.0.1:{upstream}/v1",
                            "api_key": "none",
                            "rpm": 10_000_000,
                            "input_cost_per_token": number / 1e6,
                            "output_cost_per_token": 2 * number / 1e6,
                        },
                    }
                    for number, name in enumerate(MODELS, 1)
                ],
                "router_settings": {"optional_pre_call_checks": ["enforce_model_rate_limits"]},
                "litellm_settings": {"callbacks": [], "num_retries": 0, "request_timeout": 60},
                "general_settings": {"master_key": MASTER_KEY, "disable_spend_logs": True},
            }
        )
    )
    quiet = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "LITELLM_MODE": "PRODUCTION"}
    quiet |= {"LITELLM_TELEMETRY": "False", "DISABLE_ADMIN_UI": "True"}
    port = free_port()
    command = [str(program), "--config", str(config), "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
    made = Contender("litellm", port, "/v1/chat/completions", "auto", (("authorization", f"Bearer {MASTER_KEY}"),))
    return started(made, command, on, folder / "litellm.log", {**os.environ, **quiet})


def tensorzero(name: str, folder: Path, upstream: int, on: Sequence[int], *more: str) -> Contender:
    """more: `embedded` for the gateway as a library, which takes its load as lines on its input."""
    python = environment("tensorzero", TENSORZERO) / "python"
    config = folder / "tensorzero.toml"
    parts = ["[gateway]\nobservability.enabled = false\n[functions.auto]\ntype = 'chat'\n"]
    for model in MODELS:
        parts.append(
            f"[models.{model}]\nrouting = ['upstream']\n[models.{model}.providers.upstream]\ntype = 'openai'\n"
            f"model_name = '{model}'\napi_base = 'http://127.0.0.1:{upstream}/v1/'\napi_key_location = 'none'\n"
            f"[functions.auto.variants.{model}]\ntype = 'chat_completion'\nmodel = '{model}'\n"
        )
    config.write_text("".join(parts))
    script = Path(__file__).parent / "peers" / "tensorzero_gateway.py"
    began = time.perf_counter()
    running = Running([str(python), str(script), str(config), *more], on, folder / "tensorzero.log")
    said = running.line()
    while not said.isdigit():  # its log goes to standard output
        said = running.line()
    made = Contender(name, int(said), "/openai/v1/chat/completions", "tensorzero::function_name::auto")
    made.running = running
    if not more:
        load.drive(made.port, made.request(1), 1, 1)
    made.start_s = time.perf_counter() - began
    return made


def started(
    made: Contender, command: Sequence[str], on: Sequence[int], errors: Path, env: Mapping[str, str]
) -> Contender:
    """Run a server and ask until it answers; `start_s` is from its start to that answer."""
    began = time.perf_counter()
    made.running = Running(command, on, errors, env, discard=True)
    try:
        while time.perf_counter() - began < START_S:
            if made.running.over:
                raise OSError(f"{made.name} ended: {made.running.errors()}")
            with suppress(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", made.port), timeout=1).close()
                load.drive(made.port, made.request(1), 1, 1)
                made.start_s = time.perf_counter() - began
                return made
            time.sleep(CONNECT_S)
        raise OSError(f"{made.name} gave no answer within {START_S:.0f} s: {made.running.errors()}")
    except BaseException:
        made.stop()
        raise
