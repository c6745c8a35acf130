"""The same with asyncio: many calls at once in one process, and what the ledger knows of them afterwards."""

import asyncio

from windlass import AsyncClient, ModelUnknown

PARTS = ("drum", "rope", "crank", "brake")


async def main() -> None:
    async with AsyncClient() as client:
        questions = [f"The {part} is held by a pawl. Rain falls.\n\nWhat holds the {part}?" for part in PARTS]
        replies = await asyncio.gather(*(client.chat([{"role": "user", "content": text}]) for text in questions))
        for reply in replies:
            print(f"{reply.model}: {reply.text.splitlines()[-1]}")

        try:
            await client.chat([{"role": "user", "content": "Hello"}], model="nobody")
        except ModelUnknown as exc:
            print(f"refused: {exc}")

        for trace in await client.calls(limit=len(PARTS)):
            (decision,) = trace.decisions
            print(f"{decision.call}: {decision.action} with probability {decision.propensity:.2f}")


asyncio.run(main())
