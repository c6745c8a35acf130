"""What came of calls: by provider, by cause, by key."""
