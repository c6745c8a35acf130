"""What Prometheus is told: sums over the ledger, and what only lives in the memory of each worker."""
