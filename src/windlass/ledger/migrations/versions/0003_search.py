"""On PostgreSQL the tables of content search; SQLite has a full-text table for each collection."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# The kinds of token that letters and digits alone make; the program cuts the text into such.
TOKENS = "asciiword, word, numword, int, uint, float, sfloat, version"

SAMPLED = (
    ("search_chunks", "words"),
    ("chunks", "text"),
    ("segments", "text"),
    ("quotes", "text"),
    ("sources", "data"),
)


def upgrade() -> None:
    if op.get_bind().dialect.name != "postgresql":
        return
    op.execute("CREATE TEXT SEARCH DICTIONARY windlass_porter (TEMPLATE = snowball, LANGUAGE = porter)")
    op.execute("CREATE TEXT SEARCH CONFIGURATION windlass (PARSER = default)")
    op.execute(f"ALTER TEXT SEARCH CONFIGURATION windlass ADD MAPPING FOR {TOKENS} WITH windlass_porter")
    op.execute(
        "CREATE TABLE search_chunks (chunk bigint PRIMARY KEY, collection bigint NOT NULL, "
        "length integer NOT NULL, words tsvector NOT NULL)"
    )
    op.execute("CREATE INDEX search_chunks_by_collection ON search_chunks (collection)")
    # Without the list of pending entries: every search would read it, and it keeps the words of deleted chunks.
    op.execute("CREATE INDEX search_chunks_by_words ON search_chunks USING gin (words) WITH (fastupdate = off)")
    op.execute("CREATE TABLE search_sizes (collection bigint PRIMARY KEY, words bigint NOT NULL)")
    # The planner's statistics would keep samples of texts whose rows are long gone.
    for table, column in SAMPLED:
        op.execute(f"ALTER TABLE {table} ALTER {column} SET STATISTICS 0")
    # Chunks that are there already: nearly as the program cuts them; to ingest an item again makes it exact.
    op.execute(
        "INSERT INTO search_chunks (chunk, collection, length, words) SELECT id, collection, "
        "(SELECT coalesce(sum(cardinality(positions)), 0) FROM unnest(cut)), cut FROM (SELECT id, collection, "
        "to_tsvector('windlass', regexp_replace(lower(left(text, 100000)), '[^[:alnum:]]+', ' ', 'g')) AS cut "
        "FROM chunks) AS c"
    )
    op.execute(
        "INSERT INTO search_sizes (collection, words) SELECT c.id, coalesce(sum(s.length), 0) "
        "FROM collections AS c LEFT JOIN search_chunks AS s ON s.collection = c.id GROUP BY c.id"
    )
