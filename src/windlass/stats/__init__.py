"""Pure mathematics: posteriors and probabilities over numpy arrays. No clock, no randomness, no files, no logging."""
