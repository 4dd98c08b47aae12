"""Reads a request of OTLP from a file, by the official protobufs, and prints it as JSON."""

import json
import sys

from google.protobuf.unknown_fields import UnknownFieldSet
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


def facts(attributes):
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}


with open(sys.argv[1], "rb") as file:
    request = ExportTraceServiceRequest.FromString(file.read())
(of_resource,) = request.resource_spans
(scope,) = of_resource.scope_spans
spans = [
    {
        "name": span.name,
        "trace_id": span.trace_id.hex(),
        "parent": span.parent_span_id.hex(),
        "attributes": facts(span.attributes),
        "events": [event.name for event in span.events],
    }
    for span in scope.spans
]
messages = [request, of_resource, of_resource.resource, scope, *scope.spans]
print(
    json.dumps(
        {
            "resource": facts(of_resource.resource.attributes),
            "spans": spans,
            "unknown_fields": sum(len(UnknownFieldSet(one)) for one in messages),
        }
    )
)
