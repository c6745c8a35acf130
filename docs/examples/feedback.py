"""Feedback moves a policy: rate one model higher, and read its score and its chance to be chosen before and after."""

from windlass import Client

LIKED = "local/quotes-semantic"
PASSAGES = "A pawl drops behind each tooth. It holds the load while nobody pushes.\n\nWhat holds the load?"


def ask(client: Client) -> tuple[str, str]:
    """One call whose model the policy chooses: the id of the call, and the model."""
    reply = client.chat([{"role": "user", "content": PASSAGES}], model="auto")
    return reply.call, reply.model


def chance(client: Client) -> float:
    """The probability of LIKED at one more decision, as the ledger has it; there are two models."""
    trace = client.trace(ask(client)[0])
    assert trace is not None
    (decision,) = trace.decisions
    print(f"{decision.policy} scores: {decision.extra['why']}")
    return decision.propensity if decision.action == LIKED else 1.0 - decision.propensity


with Client() as client:
    before = chance(client)
    for _ in range(40):
        call, model = ask(client)
        client.feedback(call, "rating", value=1.0 if model == LIKED else 0.1)

# What was learned is in the folder: any process goes on with it.
with Client() as client:
    after = chance(client)

print(f"{LIKED} is chosen with probability {before:.2f} before 40 ratings, {after:.2f} after")
assert after > before
