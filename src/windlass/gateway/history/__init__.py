"""What other programs logged of calls that did not go through this gateway, brought into the ledger as past calls."""
