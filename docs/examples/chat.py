"""Ask a model in this process: no server, no key, no network. The reply says which model answered and what it cost."""

from windlass import Client

PASSAGES = """A windlass is a winch that a crew turns by hand.
A pawl drops behind each tooth and holds the load while nobody pushes.

What holds the load?"""

with Client() as client:
    print("models:", ", ".join(client.models()))
    reply = client.chat([{"role": "user", "content": PASSAGES}])
    print(reply.text)
    print(f"{reply.model} took {reply.latency_ms:.0f} ms, {reply.prompt_tokens} + {reply.completion_tokens} tokens")
    print(f"recorded as {reply.call}; `windlass calls` shows it")
