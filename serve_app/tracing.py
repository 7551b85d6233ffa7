"""OpenTelemetry traces with one span per stage; without an endpoint nothing is imported.

The context travels in `RequestContext.traceparent`, so spans on all replicas know
their parents. Spans hold sizes and outcomes, never text.
Source of the header's format: W3C Trace Context, level 1.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Protocol, TypeAlias

from serve_app import __version__
from serve_app.core.errors import ConfigurationError
from serve_app.core.records import RequestContext
from serve_app.settings.service import TracingSettings

Attributes: TypeAlias = Mapping[str, str | int | float | bool]

_PARENT = "traceparent"


class Tracer(Protocol):
    """Opens the spans of one stage."""

    def span(
        self, name: str, request_context: RequestContext, attributes: Attributes | None = None
    ) -> AbstractContextManager[RequestContext]:
        """Returns a context manager for the duration of the span.

        It yields the context for the stages below. An exception marks the span as an
        error with the exception's class, without its message.

        Args:
            name: of the stage.
            request_context: of the request; its trace context is the parent of the span.
            attributes: numbers and names, no text.
        """
        ...

    def close(self) -> None:
        """Sends the remaining spans."""
        ...


def open_tracer(settings: TracingSettings, stage: str) -> Tracer:
    """Returns a tracer that exports to the endpoint of the settings, if there is one.

    Args:
        settings: endpoint and sample ratio.
        stage: the service name of the spans is `paraserve-<stage>`.

    Raises:
        ConfigurationError: an endpoint is set, but OpenTelemetry is not installed.
    """
    if settings.otlp_endpoint is None:
        return _NoTracer()
    try:
        return _OtlpTracer(settings.otlp_endpoint, settings.sample_ratio, stage)
    except ImportError as error:
        raise ConfigurationError(
            f"tracing.otlp_endpoint is set, but {error.name} is not installed: "
            "pip install 'paraserve[tracing]'"
        ) from None


class _NoTracer:
    def span(
        self, name: str, request_context: RequestContext, attributes: Attributes | None = None
    ) -> AbstractContextManager[RequestContext]:
        return nullcontext(request_context)

    def close(self) -> None:
        pass


class _OtlpTracer:
    def __init__(self, endpoint: str, sample_ratio: float, stage: str) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
        from opentelemetry.trace import Status, StatusCode
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        resource = Resource.create(
            {"service.name": f"paraserve-{stage}", "service.version": __version__}
        )
        # The sampling decision of the caller is respected.
        sampler = ParentBased(TraceIdRatioBased(sample_ratio))
        self._provider = TracerProvider(resource=resource, sampler=sampler)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint)))
        self._tracer = self._provider.get_tracer("paraserve", __version__)
        self._propagator = TraceContextTextMapPropagator()
        self._error = Status(StatusCode.ERROR)

    @contextmanager
    def span(
        self, name: str, request_context: RequestContext, attributes: Attributes | None = None
    ) -> Generator[RequestContext]:
        from opentelemetry.context import Context
        from opentelemetry.trace import set_span_in_context

        carrier = (
            {} if request_context.traceparent is None else {_PARENT: request_context.traceparent}
        )
        # Contexts are passed explicitly, since the stages interleave requests in one task.
        span = self._tracer.start_span(
            name,
            context=self._propagator.extract(carrier, context=Context()),
            attributes={"paraserve.request_id": request_context.request_id, **(attributes or {})},
        )
        carrier_below: dict[str, str] = {}
        self._propagator.inject(carrier_below, context=set_span_in_context(span, Context()))
        try:
            yield replace(request_context, traceparent=carrier_below.get(_PARENT))
        except GeneratorExit:
            raise
        except BaseException as error:
            span.set_attribute("error.type", type(error).__name__)
            span.set_status(self._error)
            raise
        finally:
            span.end()

    def close(self) -> None:
        self._provider.shutdown()
