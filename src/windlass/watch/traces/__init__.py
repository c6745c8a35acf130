"""Traces: what the ledger holds of each call, sent to a receiver of OTLP as OpenTelemetry spans."""
