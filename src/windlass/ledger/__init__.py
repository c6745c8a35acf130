"""The ledger: append, read, project, migrate; one contract, several databases."""
