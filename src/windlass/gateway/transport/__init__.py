"""What carries requests to an upstream: the contract of an HTTP client, aiohttp, and `turbo`."""
