"""Around the providers: time-outs, retries, circuit breakers, hedging and fail-over."""
