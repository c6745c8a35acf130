"""The export of traces, where it is wanted; where it is not, nothing of it is loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from windlass.gateway.options import ProviderOptions
from windlass.ledger.db import Database
from windlass.ledger.ledger import Ledger
from windlass.watch.traces.options import HEADERS_SECRET, TelemetryOptions, headers

if TYPE_CHECKING:
    from windlass.watch.traces.exporter import Exporter


def exporter(
    options: TelemetryOptions,
    secrets: Mapping[str, str],
    providers: Callable[[], Iterable[ProviderOptions]],
    *,
    db: Database,
    ledger: Ledger,
    clock: Callable[[], float],
) -> Exporter | None:
    """What sends spans, not yet started; None where no receiver is set. SettingsError for headers that are none.

    providers: of the settings in force, which a reload may change.
    """
    if not options.otlp_endpoint:
        return None
    from importlib.metadata import version

    from windlass.watch.traces import names
    from windlass.watch.traces.exporter import Exporter
    from windlass.watch.traces.receiver import Receiver

    ours = version("windlass")
    resource = {
        names.SERVICE: options.service_name,
        names.SERVICE_VERSION: ours,
        names.SDK: "windlass",
        names.SDK_LANGUAGE: "python",
        names.SDK_VERSION: ours,
    }
    sent = headers(secrets.get(HEADERS_SECRET, ""), options.headers_env)
    return Exporter(
        options,
        Receiver(options.url, sent, options.timeout_s, clock),
        providers,
        db=db,
        ledger=ledger,
        clock=clock,
        resource=resource,
        version=ours,
    )
