"""Strict schemas of the fields that the chart uses of other projects' resources.

From the models of KEDA 2.16, prometheus-operator 0.80 and the Gateway API 1.2.
"""

STRING = {"type": "string"}
LABELS = {"type": "object", "additionalProperties": STRING}


def closed(required=(), **properties):
    """Object with these members and no others."""
    return {
        "type": "object",
        "additionalProperties": False,
        "required": list(required),
        "properties": properties,
    }


def items(schema):
    return {"type": "array", "minItems": 1, "items": schema}


METADATA = closed(["name"], name=STRING, namespace=STRING, labels=LABELS, annotations=LABELS)


def resource(spec):
    return closed(["apiVersion", "kind", "metadata", "spec"], apiVersion=STRING, kind=STRING, metadata=METADATA, spec=spec)


POLICY = closed(
    ["type", "value", "periodSeconds"],
    type={"enum": ["Pods", "Percent"]},
    value={"type": "integer"},
    periodSeconds={"type": "integer", "minimum": 1, "maximum": 1800},
)
DIRECTION = closed(
    policies=items(POLICY), stabilizationWindowSeconds={"type": "integer", "minimum": 0, "maximum": 3600}
)

SCHEMAS = {
    "ScaledObject": resource(
        closed(
            ["scaleTargetRef", "triggers"],
            scaleTargetRef=closed(["name"], name=STRING),
            minReplicaCount={"type": "integer", "minimum": 1},
            maxReplicaCount={"type": "integer", "minimum": 1},
            pollingInterval={"type": "integer"},
            advanced=closed(
                horizontalPodAutoscalerConfig=closed(behavior=closed(scaleUp=DIRECTION, scaleDown=DIRECTION))
            ),
            triggers=items(
                {
                    "oneOf": [
                        closed(
                            ["type", "metadata"],
                            type={"const": "prometheus"},
                            metadata=closed(
                                ["serverAddress", "query", "threshold"],
                                serverAddress=STRING,
                                query=STRING,
                                threshold=STRING,
                                ignoreNullValues=STRING,
                            ),
                        ),
                        closed(
                            ["type", "metadata", "authenticationRef"],
                            type={"const": "postgresql"},
                            metadata=closed(["query", "targetQueryValue"], query=STRING, targetQueryValue=STRING),
                            authenticationRef=closed(["name"], name=STRING),
                        ),
                    ]
                }
            ),
        )
    ),
    "TriggerAuthentication": resource(
        closed(
            ["secretTargetRef"],
            secretTargetRef=items(closed(["parameter", "name", "key"], parameter=STRING, name=STRING, key=STRING)),
        )
    ),
    "PodMonitor": resource(
        closed(
            ["selector", "podMetricsEndpoints"],
            selector=closed(matchLabels=LABELS),
            podMetricsEndpoints=items(closed(["port"], port=STRING, path=STRING, interval=STRING)),
        )
    ),
    "PrometheusRule": resource(
        closed(
            ["groups"],
            groups=items(
                closed(
                    ["name", "rules"],
                    name=STRING,
                    interval=STRING,
                    rules=items(
                        {
                            "oneOf": [
                                closed(["record", "expr"], record=STRING, expr=STRING, labels=LABELS),
                                {
                                    "type": "object",
                                    "additionalProperties": False,
                                    "required": ["alert", "expr", "labels", "annotations"],
                                    "properties": {
                                        "alert": STRING,
                                        "expr": STRING,
                                        "for": STRING,
                                        "labels": LABELS,
                                        "annotations": closed(
                                            ["summary"], summary=STRING, runbook_url=STRING
                                        ),
                                    },
                                },
                            ]
                        }
                    ),
                )
            ),
        )
    ),
    "HTTPRoute": resource(
        closed(
            ["parentRefs", "rules"],
            parentRefs=items(closed(["name"], name=STRING, namespace=STRING, sectionName=STRING)),
            hostnames=items(STRING),
            rules=items(
                closed(backendRefs=items(closed(["name", "port"], name=STRING, port={"type": "integer"})))
            ),
        )
    ),
}
