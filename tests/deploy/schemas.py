"""Strict schemas of the fields that chart and examples use of other projects' resources.

From the models of KEDA 2.16, prometheus-operator 0.80, the Gateway API 1.2, RabbitMQ's cluster operator 2.12 and topology
operator 1.15, CloudNativePG 1.27 and Argo CD 2.13.
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


NAMED = closed(["name"], name=STRING)
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
    "RabbitmqCluster": resource(
        closed(
            ["replicas", "persistence"],
            replicas={"type": "integer", "minimum": 1},
            persistence=closed(storage=STRING, storageClassName=STRING),
            resources=closed(requests=LABELS, limits=LABELS),
            rabbitmq=closed(additionalConfig=STRING),
        )
    ),
    "User": resource(closed(["rabbitmqClusterReference"], rabbitmqClusterReference=NAMED)),
    "Permission": resource(
        closed(
            ["vhost", "permissions", "rabbitmqClusterReference"],
            vhost=STRING,
            userReference=NAMED,
            permissions=closed(configure=STRING, write=STRING, read=STRING),
            rabbitmqClusterReference=NAMED,
        )
    ),
    "Cluster": resource(
        closed(
            ["instances", "storage"],
            instances={"type": "integer", "minimum": 1},
            storage=closed(size=STRING),
            walStorage=closed(size=STRING),
            bootstrap=closed(initdb=closed(["database", "owner"], database=STRING, owner=STRING)),
            managed=closed(
                roles=items(
                    closed(
                        ["name"],
                        name=STRING,
                        ensure={"enum": ["present", "absent"]},
                        login={"type": "boolean"},
                        passwordSecret=NAMED,
                    )
                )
            ),
            postgresql=closed(
                synchronous=closed(
                    ["method", "number"],
                    method={"enum": ["any", "first"]},
                    number={"type": "integer"},
                    dataDurability={"enum": ["required", "preferred"]},
                    failoverQuorum={"type": "boolean"},
                ),
                # PostgreSQL's parameters are texts, also the numbers.
                parameters=LABELS,
            ),
        )
    ),
    "Application": resource(
        closed(
            ["project", "source", "destination"],
            project=STRING,
            source=closed(
                ["repoURL", "path"],
                repoURL=STRING,
                targetRevision=STRING,
                path=STRING,
                helm=closed(valueFiles=items(STRING), valuesObject={"type": "object"}),
            ),
            destination=closed(server=STRING, namespace=STRING),
            syncPolicy=closed(
                automated=closed(prune={"type": "boolean"}, selfHeal={"type": "boolean"}), syncOptions=items(STRING)
            ),
        )
    ),
}
