"""The content room: reading transcripts, finding their chapters and key quotes, keeping them with speaker and time.

What comes from a transcript is data: it is cleaned, stored and shown, never interpreted.
"""
