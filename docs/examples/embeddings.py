"""Texts to vectors with the embedder of this process, and the nearest text to a question."""

from windlass import Client

TEXTS = (
    "A pawl drops behind each tooth and holds the load.",
    "Bread is baked in an oven until its crust is brown.",
    "The lock keeper opens the upper gate when the water is level.",
)

with Client() as client:
    kept = client.embed(TEXTS)
    asked = client.embed(["What keeps the load from falling back?"])

print(f"{kept.model}: {kept.vectors.shape[0]} vectors of {kept.vectors.shape[1]} numbers, {kept.prompt_tokens} tokens")
# The vectors have length 1, so that their product is the cosine of the angle between them.
likeness = kept.vectors @ asked.vectors[0]
for place in (-likeness).argsort():
    print(f"{likeness[place]:.2f}  {TEXTS[place]}")
assert likeness.argmax() == 0
