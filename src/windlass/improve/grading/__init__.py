"""Graders: what was a finished reply worth? Checks, code, citations, signals of users, and judges that are models."""
