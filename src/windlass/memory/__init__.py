"""Memory: embedders, the vector index, the full-text index, retrieval."""
