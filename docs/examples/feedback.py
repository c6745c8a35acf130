"""Feedback moves a policy: rate what one model says higher, and see the chance that it is chosen before and after."""

import json
import subprocess
import sys

from windlass import Client

LIKED = "local/quotes-semantic"
PASSAGES = "A pawl drops behind each tooth. It holds the load while nobody pushes.\n\nWhat holds the load?"


def ask(client: Client) -> tuple[str, str]:
    """One call whose model the policy chooses: the id of the call, and the model."""
    reply = client.chat([{"role": "user", "content": PASSAGES}], model="auto")
    return reply.call, reply.model


def chance() -> float:
    """The probability that LIKED had at the newest decision, as the ledger has it. Of two models one was taken."""
    command = [sys.executable, "-m", "windlass.cli", "decisions", "--limit", "1", "--json"]
    (decision,) = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)["decisions"]
    print(f"{decision['policy']} scores: {decision['extra']['why']}")
    propensity = float(decision["propensity"])
    return propensity if decision["action"] == LIKED else 1.0 - propensity


with Client() as client:
    ask(client)
before = chance()

with Client() as client:
    for _ in range(40):
        call, model = ask(client)
        client.feedback(call, "rating", value=1.0 if model == LIKED else 0.1)

# What was learned is in the folder: another process goes on with it.
with Client() as client:
    ask(client)
after = chance()

print(f"{LIKED} is chosen with probability {before:.2f} before 40 ratings, {after:.2f} after")
assert after > before
