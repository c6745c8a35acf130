"""Every kind of provider behind the one contract of `provider.py`, and the suite that all are held to."""
