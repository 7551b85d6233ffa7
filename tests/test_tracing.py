"""Traces: spans that know their parents across processes, and nothing when off."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from serve_app.core.errors import ConfigurationError
from serve_app.core.records import RequestContext
from serve_app.settings.service import TracingSettings
from serve_app.tracing import open_tracer
from tests.otlp_receiver import Receiver, receiving

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


def test_off_hands_the_origin_through() -> None:
    context = RequestContext("r", traceparent=PARENT)
    with open_tracer(TracingSettings(), "ingress").span("ingress", context) as below:
        assert below is context


def test_off_imports_no_opentelemetry() -> None:
    code = (
        "import sys; from serve_app.tracing import open_tracer; "
        "from serve_app.settings.service import TracingSettings; "
        "open_tracer(TracingSettings(), 'x'); "
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_spans_of_two_stages_form_one_trace_below_the_callers(receiver: Receiver) -> None:
    settings = TracingSettings(otlp_endpoint=receiver.url)
    first, second = open_tracer(settings, "ingress"), open_tracer(settings, "segmenter")
    with (
        first.span(
            "ingress", RequestContext("r", traceparent=PARENT), {"stages": "asr"}
        ) as context,
        second.span("segmenter", context),
    ):
        pass
    first.close()
    second.close()
    spans = {span.name: span for span in receiver.spans}
    assert {span.trace_id for span in spans.values()} == {"0af7651916cd43dd8448eb211c80319c"}
    assert spans["ingress"].parent_id == "b7ad6b7169203331"
    assert spans["segmenter"].parent_id == spans["ingress"].span_id
    assert spans["segmenter"].service == "paraserve-segmenter"


def test_span_records_only_the_class_of_an_error(receiver: Receiver) -> None:
    tracer = open_tracer(TracingSettings(otlp_endpoint=receiver.url), "ingress")
    with pytest.raises(ValueError, match="secret"), tracer.span("ingress", RequestContext("r")):
        raise ValueError("secret")
    tracer.close()
    (span,) = receiver.spans
    assert span.is_error
    assert "secret" not in str(span)


def test_a_request_that_is_not_sampled_leaves_no_span_in_any_stage(receiver: Receiver) -> None:
    first = open_tracer(TracingSettings(otlp_endpoint=receiver.url, sample_ratio=0.0), "ingress")
    second = open_tracer(TracingSettings(otlp_endpoint=receiver.url), "segmenter")
    with first.span("ingress", RequestContext("r")) as context, second.span("segmenter", context):
        pass
    first.close()
    second.close()
    assert receiver.spans == []


def test_endpoint_without_opentelemetry_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(ConfigurationError, match=r"paraserve\[tracing\]"):
        open_tracer(TracingSettings(otlp_endpoint="http://127.0.0.1:1/"), "ingress")
