"""Types of the Fanfare API. Generated from proto/openapi.json by generate_models.py: change neither by hand."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, Dict, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, RootModel


class ApiKey(BaseModel):
    """
    An API key, without the text of the key.
    """

    application: str | None = None
    created_at: AwareDatetime
    expires_at: AwareDatetime | None = None
    """
    The time of expiry, in the future or the past.
    """
    id: str
    last_used_at: AwareDatetime | None = None
    """
    The time of the last use, accurate to a few seconds.
    """
    revoked_at: AwareDatetime | None = None
    role: Annotated[str, Field(examples=["publish"])]


class ApplicationChange(BaseModel):
    """
    Changes to an application. Omitted fields keep their value.
    """

    model_config = ConfigDict(
        extra="forbid",
    )
    dialect: str | None = None
    """
    The dialect of future events. Events accepted before keep their body; the new dialect signs and retries their
    deliveries.
    """
    email: str | None = None
    """
    `null` removes the address.
    """
    events_per_day: Annotated[int | None, Field(ge=0)] = None
    """
    1 to 10^15; `null` for the plan's quota.
    """
    labels: dict[str, str] | None = None
    """
    All labels, at most 16: keys of 1 to 63 small letters, digits and `. _ / -`, values of at most 128 characters.
    """
    max_webhooks: Annotated[int | None, Field(ge=0)] = None
    """
    1 to 1000000; `null` for the limit of the plan or the deployment.
    """
    name: str | None = None
    plan: str | None = None
    """
    The name of a plan; `null` for none. Requires an admin key, as all limits and labels.
    """
    publish_rate_per_second: Annotated[int | None, Field(ge=0)] = None
    """
    1 to 1000000; `null` for the limit of the plan or the deployment.
    """
    redacted: list[str] | None = None
    """
    The complete list, at most 100 members. Stored events and responses do not change.
    """
    stored_bytes: Annotated[int | None, Field(ge=0)] = None
    """
    1 to 10^15; `null` for the plan's quota.
    """
    strict: bool | None = None


class Attempt(BaseModel):
    """
    An attempt of a delivery.
    """

    attempt: Annotated[int, Field(ge=0)]
    duration_ms: int | None = None
    error: str | None = None
    id: str
    next_attempt_at: AwareDatetime | None = None
    outcome: str
    """
    `answered`, or the kind of failure, such as `timed_out`.
    """
    request_headers: list[list[str]] | None = None
    """
    Names and values of the request's headers, rebuilt from the settings and secrets now in force. The values of the
    webhook's own headers are hidden; `traceparent`, `tracestate`, `fanfare-replay` and signatures `v1a` are left
    out. `null` if the secrets were changed since, if the body is long or redacted, or if the webhook is deleted or
    unreadable.
    """
    response_body: str | None = None
    """
    The stored part of the response's body. Invalid UTF-8 is replaced.
    """
    response_headers: dict[str, Any] | None = None
    started_at: AwareDatetime
    status: int | None = None
    url: str | None = None


class AuditEntry(BaseModel):
    """
    A change, or an attempt at a change.
    """

    action: Annotated[str, Field(examples=["change_webhook"])]
    """
    The `operationId` in this document, or the command.
    """
    application: str | None = None
    at: AwareDatetime
    id: Annotated[str, Field(examples=["aud_01h455vb4pex5vsknk084sn02q"])]
    key: str | None = None
    """
    The API key of the request; `null` for an operator's command, and for Fanfare itself.
    """
    origin: Annotated[str, Field(examples=["203.0.113.7"])]
    """
    The IP address of the client, `user@host` of a command, or `fanfare`.
    """
    outcome: Annotated[str | None, Field(examples=["done"])] = None
    """
    `done`, `refused` or `failed`; `null` while the request runs, or after the process died during the request.
    """
    path: str | None = None
    request: Any
    """
    The body of the request, or the arguments of the command, without secrets.
    """
    subject: list[str]
    """
    The ids of the changed objects.
    """
    visitor: str | None = None
    """
    The name of the visitor, for a change over the web pages.
    """


class CancelledEvent(BaseModel):
    """
    Result of a cancellation.
    """

    already_cancelled: bool
    """
    True after an earlier request.
    """
    cancelled_at: AwareDatetime
    id: str


class CheckedUrl(BaseModel):
    """
    Result of the check of a URL.
    """

    callable: bool
    """
    True if a webhook may have the URL.
    """
    problem: str | None = None
    """
    The reason of a refusal.
    """


class ClientCertificate(BaseModel):
    """
    Client certificate of a webhook, without the private key.
    """

    issuer: str
    not_after: AwareDatetime
    """
    The end of the certificate. From then on, no delivery is sent.
    """
    sha256: str
    """
    SHA-256 of the certificate in DER, in hex.
    """
    subject: Annotated[str, Field(examples=["CN=fanfare,O=Example"])]


class CloudEvent(BaseModel):
    """
    A CloudEvent 1.0 in the JSON format. Extensions are further fields.
    """

    model_config = ConfigDict(
        extra="allow",
    )
    __annotations__ = {
        "__pydantic_extra__": Dict[str, Any],
    }
    data: Any | None = None
    """
    The payload: any JSON value. Without, the payload is `null`.
    """
    datacontenttype: Annotated[str | None, Field(examples=["application/json"])] = None
    """
    The media type of the data. With another type than JSON, `data` is a string.
    """
    dataschema: Annotated[
        str | None, Field(examples=["https://example.com/order.json"])
    ] = None
    """
    A URI with a scheme.
    """
    deliverat: AwareDatetime | None = None
    """
    The time of delivery.
    """
    id: Annotated[str, Field(max_length=253, min_length=1)]
    """
    The publisher's id of the event, unique in its source. `source`, a space and `id` are the idempotency key, of at
    most 255 bytes.
    """
    source: Annotated[str, Field(examples=["/shop"], max_length=253, min_length=1)]
    """
    The context of the event.
    """
    specversion: Annotated[str, Field(examples=["1.0"], pattern="^1\\.0$")]
    subject: Annotated[str | None, Field(min_length=1)] = None
    time: AwareDatetime | None = None
    """
    The time of the event.
    """
    type: Annotated[str, Field(examples=["com.example.order.created"])]
    """
    1 to 128 letters, digits and `_ - . : /`, without a dot at either end.
    """


class Count(BaseModel):
    """
    The number of deliveries in a state.
    """

    deliveries: int
    """
    At most 10,000.
    """
    has_more: bool
    """
    True if there are, or may be, more deliveries.
    """


class CountedEvents(BaseModel):
    """
    The newest events of the application that the subscriptions match.
    """

    matched: int
    matched_last_hour: int
    """
    The matched events of the last hour.
    """
    of: int
    """
    The number of counted events: the newest 5,000, without tests.
    """
    since: AwareDatetime | None = None
    """
    The acceptance of the oldest counted event.
    """
    warnings: list[str]
    """
    The subscriptions that match no described event type.
    """


class DayDigest(BaseModel):
    """
    The deliveries of a day, by the UTC day of acceptance.
    """

    count: Annotated[int, Field(ge=0)]
    """
    The number of deliveries.
    """
    day: date
    first: str | None = None
    """
    A place of the feed just before the first delivery; `null` without a delivery.
    """
    hash: str
    """
    The SHA-256 in hex over the `webhook-id` of each delivery, sorted as bytes, each followed by a newline.
    """
    last: str | None = None
    """
    The place of the last delivery.
    """


class Deleted(BaseModel):
    """
    Result of the deletion of a webhook.
    """

    deleted: Annotated[bool, Field(examples=[True])]
    id: str


class Delivery(BaseModel):
    """
    A delivery: one event to one webhook.
    """

    accepted_at: AwareDatetime
    attempt: Annotated[int, Field(ge=0)]
    """
    The number of the current attempt; else of the next attempt; for a finished delivery, of the last attempt.
    """
    event: str
    finished_at: AwareDatetime | None = None
    id: Annotated[str, Field(examples=["dlv_01h455vb4pex5vsknk084sn02q"])]
    mailed_at: AwareDatetime | None = None
    """
    The time of the last mail to an owner that reported a failure of the delivery.
    """
    next_attempt_at: AwareDatetime | None = None
    """
    The time of the next attempt of a scheduled delivery.
    """
    reason: str | None = None
    """
    The reason for the state `queued` or `failed`; `feed` for a skipped delivery whose receiver reads the feed.
    """
    response_status: int | None = None
    """
    The status of the last response.
    """
    retry_count: Annotated[int, Field(ge=0)]
    """
    The number of attempts after the first.
    """
    sequence: Annotated[int | None, Field(ge=0)] = None
    """
    The number of the delivery for the webhook and the ordering key of the event.
    """
    state: Annotated[str, Field(examples=["delivered"])]
    """
    `sending`; `scheduled`: waits for a retry; `queued`: the webhook cannot take the delivery now; `held`: queued,
    and the webhook is paused; `delivered`, `failed` or `skipped`.
    """
    type: str
    url: str
    webhook: str
    webhook_name: str | None = None
    """
    The name of the webhook.
    """


class DeliveryCounts(BaseModel):
    """
    Numbers of deliveries by state. `delivered` is not counted.
    """

    failed: Count
    held: Count
    queued: Count
    scheduled: Count
    sending: Count
    skipped: Count


class DeliveryDetail(Delivery):
    """
    A delivery with body and attempts.
    """

    attempts: list[Attempt]
    body: str
    """
    The body of the request. Each attempt sends the same bytes.
    """
    mailed_to: str | None = None
    """
    The address of the last mail that reported a failure.
    """
    template_error: str | None = None
    """
    Why the webhook's template had no body for the event, of a delivery that failed as `not_rendered`.
    """


class DescribedType(BaseModel):
    """
    A described event type.
    """

    category: str | None = None
    description: str | None = None
    name: Annotated[str, Field(examples=["points.earned"])]
    sample: Any
    """
    The default data of a test event. Generated from the schema if the type has a schema and no sample of its own.
    """
    schema_version: Annotated[int | None, Field(examples=[1], ge=0)] = None
    """
    The newest version of the type's schema; `null` without a schema.
    """
    source: Annotated[str, Field(examples=["dialect"])]
    """
    `dialect`, or `application` for the application's own types.
    """


class Dialect(BaseModel):
    """
    A dialect, as listed.
    """

    description: str
    example: str
    """
    An example of a delivery's body.
    """
    jitter_percent: Annotated[int, Field(ge=0)]
    """
    The maximum random increase of each wait, in percent.
    """
    max_attempts: Annotated[int, Field(ge=0)]
    """
    The number of failed attempts after which a delivery fails.
    """
    name: str
    """
    The value of an application's field `dialect`.
    """
    schedule: list[str]
    """
    The wait after each failed attempt.
    """
    signature_header: str | None = None
    """
    The header of the dialect's own signature; `null` for a dialect without.
    """
    timeout_ms: Annotated[int, Field(ge=0)]
    title: str


class DurationPercentiles(BaseModel):
    """
    Percentiles of durations, in milliseconds.
    """

    p50_ms: float
    p95_ms: float
    p99_ms: float


class EndedSession(BaseModel):
    """
    Result of the end of a session.
    """

    ended: Annotated[bool, Field(examples=[True])]
    id: str


class ErasedEvent(BaseModel):
    """
    Result of an erasure.
    """

    erased: Annotated[bool, Field(examples=[True])]
    id: str


class Error(BaseModel):
    """
    The error of a request.
    """

    code: str
    field: str | None = None
    """
    The field, parameter or header at fault.
    """
    id: str | None = None
    """
    The `id` for publishing the event again.
    """
    message: str
    """
    The fault and the next step, for people.
    """


class Event(BaseModel):
    """
    An accepted event.
    """

    accepted_at: AwareDatetime
    cancelled_at: AwareDatetime | None = None
    cancelled_by: str | None = None
    """
    A key, `console` or `portal`.
    """
    deliver_at: AwareDatetime | None = None
    """
    The time of delivery of a delayed event.
    """
    erased_at: AwareDatetime | None = None
    """
    The time of the erasure.
    """
    id: Annotated[str, Field(examples=["evt_01h455vb4pex5vsknk084sn02q"])]
    key: str | None = None
    """
    The publisher's id of the event.
    """
    matched_webhooks: int
    """
    The number of matching webhooks.
    """
    ordering_key: str | None = None
    """
    The ordering key of the event.
    """
    payload: Any
    """
    The body of the deliveries, without redacted members; in a list `null` for a body above 64 KiB.
    """
    status: Annotated[str, Field(examples=["fanned_out"])]
    """
    `delayed`: not yet due; `cancelled`: before it was due;
    `unmatched`: no webhook matched, and the event is kept; `fanning_out`: deliveries are being created;
    `fanned_out`: all deliveries exist.
    """
    test: bool
    """
    True for a test event.
    """
    time: AwareDatetime | None = None
    """
    The publisher's time of the event.
    """
    type: str


class EventDetail(Event):
    """
    An event with deliveries.
    """

    deliveries: list[Delivery]
    """
    At most 100 deliveries of the event. `GET /api/v1/deliveries?event=…` lists all deliveries.
    """


class Evidence(BaseModel):
    """
    A fact behind a step or a result.
    """

    name: Annotated[str, Field(examples=["created_at"])]
    """
    The name. A name that ends with `_at` has an RFC 3339 time as the value.
    """
    value: str


class FailuresByKind(BaseModel):
    """
    Failed attempts by kind.
    """

    address_forbidden: Annotated[int, Field(ge=0)]
    no_connection: Annotated[int, Field(ge=0)]
    """
    The connection was refused or closed, or the name has no address.
    """
    other: Annotated[int, Field(ge=0)]
    status_3xx: Annotated[int, Field(ge=0)]
    status_4xx: Annotated[int, Field(ge=0)]
    status_5xx: Annotated[int, Field(ge=0)]
    timed_out: Annotated[int, Field(ge=0)]
    tls_failed: Annotated[int, Field(ge=0)]
    unknown: Annotated[int, Field(ge=0)]
    """
    The dispatcher died before it recorded the outcome.
    """


class FeedEntry(BaseModel):
    """
    A delivery of the feed, signed now. The webhook's own headers are left out.
    """

    accepted_at: AwareDatetime
    body: str
    """
    The bytes of the body, as text.
    """
    delivery: str
    digest_day: date | None = None
    """
    The day whose digest counts the delivery, as in `webhook-digest-day`.
    """
    event: str
    headers: list[list[str]]
    """
    Names and values of the headers that a POST would have.
    """
    type: str


class FeedPage(BaseModel):
    """
    Deliveries in the order of the feed.
    """

    data: list[FeedEntry]
    erased: list[str] | None = None
    """
    The erased events of the page. Digests count them.
    """
    next: str | None = None
    """
    `after` of the next request; `null` before the first entry. Keep the value when the entries are handled.
    """
    success: Annotated[bool, Field(examples=[True])]


class Figures(BaseModel):
    """
    Counts of an application in a time. Test events count nowhere.
    """

    attempts: int
    """
    All attempts that began in the time: delivered, failed and unknown. Resends and replays count.
    """
    delivered: int
    """
    The attempts that delivered.
    """
    deliveries: int
    """
    The deliveries whose first attempt began in the time.
    """
    events: int
    """
    The accepted events.
    """
    failed: int
    """
    The attempts that failed.
    """
    stored_bytes: int
    """
    The bytes of the bodies of these events.
    """
    unknown: int
    """
    The attempts whose process died before it recorded the outcome.
    """


class FilterResult(BaseModel):
    """
    Result of a filter for an event.
    """

    accepted_at: AwareDatetime | None = None
    error: str | None = None
    event: str | None = None
    part: str | None = None
    """
    The part of the filter that decided.
    """
    position: Annotated[int | None, Field(ge=0)] = None
    """
    The position of the part, in characters from 1.
    """
    result: str
    """
    `true`, `false`, or `error`: no result, which counts as `false`.
    """
    type: str
    values: list[Evidence]
    """
    The members that the part looked at. The value may be `missing` or `hidden`.
    """


class FilterTest(BaseModel):
    """
    Results of a filter.
    """

    passed: Annotated[int, Field(ge=0)]
    results: list[FilterResult]
    tried_on: str
    """
    `events`, or `samples` without events.
    """


class FindingSubject1(BaseModel):
    """
    A webhook.
    """

    application: str
    kind: Literal["webhook"]
    webhook: str


class FindingSubject2(BaseModel):
    """
    An application.
    """

    application: str
    kind: Literal["application"]


class FindingSubject3(BaseModel):
    """
    The parked messages with a reason.
    """

    kind: Literal["parked"]
    reason: Annotated[str, Field(examples=["missing_message_id"])]


class FindingSubject4(BaseModel):
    """
    The processes.
    """

    kind: Literal["processes"]


class FindingSubject5(BaseModel):
    """
    The queues of the broker.
    """

    kind: Literal["queues"]


class FindingSubject6(BaseModel):
    """
    The background jobs.
    """

    kind: Literal["jobs"]


class FindingSubject7(BaseModel):
    """
    The database.
    """

    kind: Literal["database"]


class FindingSubject(
    RootModel[
        FindingSubject1
        | FindingSubject2
        | FindingSubject3
        | FindingSubject4
        | FindingSubject5
        | FindingSubject6
        | FindingSubject7
    ]
):
    root: FindingSubject1 | FindingSubject2 | FindingSubject3 | FindingSubject4 | FindingSubject5 | FindingSubject6 | FindingSubject7
    """
    The thing that a finding is about.
    """


class GivenPublicKey(BaseModel):
    """
    The explanation of a receiver's public key.
    """

    kid: str | None = None
    """
    The `kid` of the key, if the key is in force; `null` for an unknown or ended key.
    """
    verifies: bool
    """
    True if the request has a right signature by the key.
    """


class Headline(BaseModel):
    """
    The headline figures.
    """

    attempts_per_second: float
    """
    The attempts per second of all dispatchers, in the last 10 s.
    """
    due: Annotated[int, Field(ge=0)]
    """
    The deliveries that wait for a place in a dispatcher, and late retries.
    """
    events_in_hand: Annotated[int, Field(ge=0)]
    """
    The events that dispatchers hold un-acked.
    """
    events_ready: Annotated[int, Field(ge=0)]
    """
    The events that wait in the broker.
    """
    first_attempt_p95_ms: float | None = None
    """
    The 95th percentile of the time from acceptance to the first attempt, in the last counted minutes; `null`
    without an attempt.
    """
    oldest_due_ms: Annotated[int, Field(ge=0)]
    """
    The longest wait of such a delivery, in milliseconds.
    """
    parked: Annotated[int, Field(ge=0)]
    """
    The parked messages, counted up to 1,000.
    """
    retries_ready: Annotated[int, Field(ge=0)]
    """
    The retry messages that wait in the broker to be taken.
    """
    share_taken: float | None = None
    """
    The share of attempts that were taken, in the last counted minutes, from 0 to 1; `null` without an attempt.
    """


class HealthHour(BaseModel):
    """
    Attempts of an hour.
    """

    at: AwareDatetime
    """
    The beginning of the hour.
    """
    failed: Annotated[int, Field(ge=0)]
    """
    The failed attempts.
    """
    taken: Annotated[int, Field(ge=0)]
    """
    The attempts that were taken.
    """


class HeldDeliveries(BaseModel):
    """
    Held deliveries of a paused webhook.
    """

    deliveries: int
    """
    The number of held deliveries, counted up to 10,000.
    """
    oldest_accepted_at: AwareDatetime | None = None


class HistoryEntry(Delivery):
    """
    A delivery of a webhook, with its body.
    """

    payload: Any
    """
    The body of the request; `null` for a body above 64 KiB: `GET /api/v1/deliveries/{id}` shows the body.
    """


class ImportResult(BaseModel):
    """
    The result of an event type.
    """

    name: Annotated[str, Field(examples=["invoice.paid"])]
    reason: str | None = None
    """
    The reason of a refusal.
    """
    result: Annotated[str, Field(examples=["created"])]
    """
    `created`, `changed`, `unchanged` or `refused`.
    """
    schema_version: Annotated[int | None, Field(ge=0)] = None
    """
    Version of the type's schema after the import.
    """


class Imported(BaseModel):
    """
    The result of an import.
    """

    imported: bool
    """
    True if the created and changed types are saved. False for a dry run, and after a refused type.
    """
    types: list[ImportResult]


class Job(BaseModel):
    """
    The last run of a background job.
    """

    duration_ms: Annotated[int, Field(ge=0)]
    ended_at: AwareDatetime
    error: str | None = None
    """
    The error of the last run; `null` after a success.
    """
    job: Annotated[str, Field(examples=["rollups"])]
    process: str
    """
    The process of the last run.
    """
    succeeded_at: AwareDatetime | None = None


class Key(ApiKey):
    """
    A new API key.
    """

    key: str
    """
    The text of the key, shown only in this answer.
    """


class KeyRotation(BaseModel):
    """
    Rotation of an API key.
    """

    model_config = ConfigDict(
        extra="forbid",
    )
    overlap_seconds: Annotated[int | None, Field(ge=0)] = None
    """
    The time until the previous key expires, in seconds: 0 to 2592000. Default: 86400 (a day).
    """


class KeyToResume(BaseModel):
    """
    The key to resume.
    """

    model_config = ConfigDict(
        extra="forbid",
    )
    key: Annotated[str | None, Field(examples=["order-1001"])] = None
    """
    Default: all parked keys of the webhook.
    """


class LagPercentiles(BaseModel):
    """
    Percentiles of the time from acceptance to the first attempt, in milliseconds.
    """

    p50_ms: float
    p95_ms: float


class LastDigest(BaseModel):
    """
    The last day that a digest told.
    """

    count: int
    """
    The number of deliveries of the day.
    """
    day: date
    event: str
    """
    The event of the digest.
    """
    told_at: AwareDatetime


class LastFailedDelivery(BaseModel):
    """
    A failed delivery.
    """

    delivery: str
    event_type: str | None = None
    """
    `null` if the event is past the retention.
    """
    failed_at: AwareDatetime
    outcome: str | None = None
    """
    `answered`, or the kind of failure of the last attempt; `null` without an attempt.
    """
    reason: str | None = None
    """
    The reason of the failure, such as `attempts_exhausted`.
    """
    response_status: int | None = None
    """
    The status of the last answer.
    """


class Limits(BaseModel):
    """
    Limits of an application, or of the applications in a plan. `null`: no limit here.
    """

    events_per_day: Annotated[int | None, Field(ge=0)] = None
    """
    The quota of events in a UTC day: 1 to 10^15.
    """
    max_webhooks: Annotated[int | None, Field(ge=0)] = None
    """
    The maximum of webhooks: 1 to 1000000.
    """
    publish_rate_per_second: Annotated[int | None, Field(ge=0)] = None
    """
    The maximum of events per second over HTTP, at each ingest process: 1 to 1000000.
    """
    stored_bytes: Annotated[int | None, Field(ge=0)] = None
    """
    The quota of stored bytes, of the bodies of events within the retention: 1 to 10^15.
    """


class LoudApplication(BaseModel):
    """
    An application with many events.
    """

    application: str
    events_per_second: float
    name: str
    publish_rate: Annotated[int | None, Field(ge=0)] = None
    """
    The limit of events per second over HTTP of the application or its plan, at each ingest; `null` for the
    deployment's limit.
    """
    share: float
    """
    The share of all events, from 0 to 1.
    """


class NewApplication(BaseModel):
    """
    An application to create.
    """

    model_config = ConfigDict(
        extra="forbid",
    )
    dialect: str | None = None
    """
    A dialect of `GET /api/v1/dialects`. Default: `incenta`.
    """
    email: str | None = None
    name: str
    strict: bool | None = None


class NewAuthentication(BaseModel):
    """
    Authentication in the header `authorization` of all deliveries. The secrets are stored encrypted, and never shown. A
    change without the secret of the same `type` keeps the stored secret.
    """

    model_config = ConfigDict(
        extra="forbid",
    )
    audience: str | None = None
    """
    Of `oauth2`: the audience to ask for.
    """
    client_authentication: str | None = None
    """
    Of `oauth2`: `basic`, or `body` for client id and secret in the form. Default: `basic`.
    """
    client_id: str | None = None
    """
    Of `oauth2`.
    """
    client_secret: str | None = None
    """
    Of `oauth2`. Required with another origin of `token_url`.
    """
    password: str | None = None
    """
    Of `basic`.
    """
    scope: str | None = None
    """
    Of `oauth2`: the scope to ask for.
    """
    token: str | None = None
    """
    Of `bearer`.
    """
    token_url: str | None = None
    """
    Of `oauth2`: the URL of the token server.
    """
    type: Annotated[str, Field(examples=["oauth2"])]
    """
    `basic`: user name and password; `bearer`: a fixed token; `oauth2`: tokens of a token server, by client
    credentials.
    """
    username: str | None = None
    """
    Of `basic`.
    """


class NewClientCertificate(BaseModel):
    """
    A client certificate for mutual TLS. The private key is stored encrypted, and never shown.
    """

    model_config = ConfigDict(
        extra="forbid",
    )
    certificate_chain: str
    """
    PEM, the client's certificate first, then the certificates between it and the root.
    """
    private_key: str
    """
    PEM, not encrypted: RSA, ECDSA P-256 or P-384, or Ed25519.
    """


class NewEvent(BaseModel):
    """
    An event to publish.
    """

    data: Any
    """
    The payload: any JSON value.
    """
    deliver_at: AwareDatetime | None = None
    """
    The time of delivery. A time that is not ahead delivers at once.
    """
    id: str | None = None
    """
    The publisher's id of the event, at most 255 bytes: the idempotency key. Events with the same id are the same
    event, and are delivered once.
    """
    ordering_key: Annotated[
        str | None, Field(examples=["order-1001"], max_length=255)
    ] = None
    """
    Events with the same ordering key get consecutive numbers at each webhook. 1 to 255 visible ASCII characters.
    """
    time: AwareDatetime | None = None
    """
    The time of the event.
    """
    type: Annotated[str, Field(examples=["points.earned"])]
    """
    1 to 128 letters, digits and `_ - . : /`, without a dot at either end.
    """
    version: Annotated[int | None, Field(ge=1, le=20)] = None
    """
    The version of the type's schema that the data fits; the newest if omitted. Only a strict application checks.
    """


class NewEventType(BaseModel):
    """
    Description of an event type.
    """

    model_config = ConfigDict(
        extra="forbid",
    )
    category: str | None = None
    description: str | None = None
    name: Annotated[str, Field(examples=["invoice.paid"])]
    """
    1 to 128 letters, digits and `_ - . : /`, without a dot at either end.
    """
    sample: Any | None = None
    """
    The default data of a test event: any JSON value; `{}` if omitted.
    """
    schema_: Annotated[Any | None, Field(alias="schema")] = None
    """
    JSON Schema of the data, draft 2020-12. Another schema than the newest becomes the next version. Without the
    member, the schemas stay; `null` removes all versions.
    """


class NewFilterTest(BaseModel):
    """
    Filter to try.
    """

    model_config = ConfigDict(
        extra="forbid",
    )
    event_ids: list[str] | None = None
    """
    At most 20. Default: the last events.
    """
    events: list[str] | None = None
    """
    Subscriptions. Default: all types.
    """
    filter: Annotated[str, Field(examples=["data.amount > 100"])]


class NewKey(BaseModel):
    """
    An API key to create.
    """

    model_config = ConfigDict(
        extra="forbid",
    )
    application: str | None = None
    """
    The application of the key. Required for `publish` and `manage`; an admin key has no application.
    """
    expires_in_seconds: Annotated[int | None, Field(ge=0)] = None
    """
    The lifetime in seconds, 60 to 31622400, for example of a key for a customer's page. Default: until the key is
    revoked.
    """
    role: Annotated[str, Field(examples=["publish"])]
    """
    `publish`, `manage` or `admin`.
    """


class NewPlan(BaseModel):
    """
    The limits of a plan. An omitted limit, or `null`, is no limit.
    """

    model_config = ConfigDict(
        extra="forbid",
    )
    events_per_day: Annotated[int | None, Field(ge=0)] = None
    """
    1 to 10^15.
    """
    max_webhooks: Annotated[int | None, Field(ge=0)] = None
    """
    1 to 1000000.
    """
    publish_rate_per_second: Annotated[int | None, Field(ge=0)] = None
    """
    1 to 1000000.
    """
    stored_bytes: Annotated[int | None, Field(ge=0)] = None
    """
    1 to 10^15.
    """


class NewReplay(BaseModel):
    """
    Selects past events and deliveries to send again.
    """

    model_config = ConfigDict(
        extra="forbid",
    )
    rate_per_second: Annotated[int | None, Field(ge=0)] = None
    """
    Deliveries per second, 1 to 1000. Default: 50.
    """
    since: AwareDatetime
    """
    Only events accepted at or after this time.
    """
    states: list[str] | None = None
    """
    Only deliveries in these states: `failed`, `skipped`, `delivered` or `unmatched`. An `unmatched` delivery was
    never created: the webhook is newer, or had other subscriptions. Default: `failed`, `skipped` and `unmatched`.
    """
    types: list[str] | None = None
    """
    Only events of these types or wildcards, at most 100. Default: all types.
    """
    until: AwareDatetime | None = None
    """
    Only events accepted before this time. Default: now.
    """
    webhook: str | None = None
    """
    Only deliveries to this webhook. Default: all webhooks with a subscription to the event's type.
    """


class NewTemplateTest(BaseModel):
    """
    Template to try.
    """

    model_config = ConfigDict(
        extra="forbid",
    )
    event_ids: list[str] | None = None
    """
    At most 5. Default: the last events.
    """
    events: list[str] | None = None
    """
    Subscriptions. Default: all types.
    """
    filter: Annotated[str | None, Field(examples=["data.amount > 100"])] = None
    """
    Filter of the webhook: events that do not meet it need no body.
    """
    template: Any
    """
    A JSON value. Its texts may hold `{{ expression }}`.
    """


class NewTest(BaseModel):
    """
    The test event.
    """

    model_config = ConfigDict(
        extra="forbid",
    )
    data: Any | None = None
    """
    The data: any JSON value. Default: the sample of the type; `{}` for a subscribed type without description.
    """
    type: str | None = None
    """
    The event type. Default: the first described type among the webhook's subscriptions, else the first subscribed
    type.
    """
    url: str | None = None
    """
    Another URL for this test, to try a change before saving. At another origin (scheme, host or port) the webhook's
    own headers, authentication and client certificate are not sent. Default: the webhook's URL.
    """


class NewWebhook(BaseModel):
    """
    A webhook to create.
    """

    model_config = ConfigDict(
        extra="forbid",
    )
    asymmetric: bool | None = None
    """
    `true`: `webhook-signature` also has an Ed25519 signature (`v1a`) by each signing key of the application.
    Default: `false`.
    """
    authentication: NewAuthentication | None = None
    client_certificate: NewClientCertificate | None = None
    digest: bool | None = None
    """
    `true` with a feed: a daily event tells the number of deliveries and their hash, from the next UTC day on.
    Default: `false`.
    """
    email: str | None = None
    """
    The e-mail address for failure notices. Default: the application's address.
    """
    events: Annotated[list[str], Field(examples=[["REFERRAL_CREATED"]])]
    """
    Subscriptions to event types. `points.*` covers all types with the prefix `points.`, `*` covers all types. A
    subscription that matches no described type gets a warning; a strict application refuses it.
    """
    feed: str | None = None
    """
    `none`; `copy`: the feed lists the deliveries, too; `only`: the feed lists the deliveries, and nothing is sent.
    `only` stays for ever. Default: `none`.
    """
    fifo: Annotated[str | None, Field(examples=["block"])] = None
    """
    FIFO per ordering key: a delivery waits until the delivery before has ended. `block`: until it is delivered or
    given up. `skip:N`: or has failed N times. `park`: if it is given up, until the key is resumed. Default: at the
    same time.
    """
    filter: Annotated[str | None, Field(examples=["data.amount > 100"])] = None
    """
    A condition in CEL on `data` and `type`. An event makes a delivery only if the condition is true.
    """
    headers: dict[str, str] | None = None
    """
    Additional headers of all deliveries, at most 20. The values are stored encrypted, and never shown.
    """
    name: str | None = None
    rate_per_second: Annotated[int | None, Field(ge=0)] = None
    """
    The maximum of attempts per second, 1 to 10000. Default: the dialect's limit, if any.
    """
    schedule: Annotated[list[str] | None, Field(examples=[["60s", "5m", "24h"]])] = None
    """
    The wait after each failed attempt. Default: the dialect's schedule.
    """
    secret: str | None = None
    """
    A secret that the receivers already have. Default: a generated secret.
    """
    status: str | None = None
    """
    `enabled`, `paused` or `disabled`. Default: `enabled`.
    """
    template: Any | None = None
    """
    The form of the bodies, instead of the dialect's: a JSON value. A text in it may hold `{{ expression }}`, in CEL
    on `data`, `type`, `id` and `time`. At most 16 KiB.
    """
    temporary: bool | None = None
    """
    `true` with the feed `only`: the webhook is deleted when the feed was not read for about an hour.
    """
    timeout_ms: Annotated[int | None, Field(ge=0)] = None
    """
    The deadline of an attempt in milliseconds, 100 to 60000. Default: the dialect's deadline.
    """
    trace_context: bool | None = None
    """
    `true`: deliveries carry `traceparent` and `tracestate` (W3C Trace Context), if the event or the attempt has a
    trace. Default: `false`.
    """
    url: str | None = None
    """
    Required, except with the feed `only`: such a webhook has the URL `https://feed.invalid/`.
    """


class Parked(BaseModel):
    """
    A message that Fanfare could not process.
    """

    bytes: int
    """
    The length of the whole body, in bytes. Of a body of more than 1 MiB that is too long for an event, the first 64
    KiB are kept.
    """
    id: Annotated[str, Field(examples=["prk_01h455vb4pex5vsknk084sn02q"])]
    message: str
    """
    The fault, for people.
    """
    message_id: str | None = None
    origin: Annotated[str, Field(examples=["events"])]
    """
    The exchange that received the message, also used by a put-back: `events` or `deliveries`.
    """
    parked_at: AwareDatetime
    reason: Annotated[str, Field(examples=["missing_message_id"])]
    """
    The code of the fault.
    """
    routing_key: str | None = None


class ParkedChoice(BaseModel):
    """
    Selects messages, newest first, by at least one condition. A message must meet all conditions.
    """

    model_config = ConfigDict(
        extra="forbid",
    )
    ids: list[str] | None = None
    """
    At most 100 ids.
    """
    reason: str | None = None
    routing_key: str | None = None
    without_routing_key: bool | None = None
    """
    `true`: only messages without a routing key.
    """


class ParkedDetail(Parked):
    """
    A parked message with headers and body.
    """

    body: str | None = None
    """
    The body, if valid UTF-8.
    """
    body_base64: str | None = None
    """
    The body in Base64, if not valid UTF-8.
    """
    headers: dict[str, Any]
    """
    The AMQP headers of the message.
    """


class ParkedEdit(BaseModel):
    """
    Changes to a message before the put-back. Omitted fields keep their value.
    """

    model_config = ConfigDict(
        extra="forbid",
    )
    body: str | None = None
    """
    The complete new body, as text. Replaces the attributes of a CloudEvent in headers, too.
    """
    message_id: str | None = None
    """
    Refused for a CloudEvent, whose key is its source and id.
    """
    routing_key: str | None = None
    """
    `<application>.<event type>`.
    """


class ParkedGroup(BaseModel):
    """
    Parked messages with the same reason and routing key.
    """

    messages: int
    """
    The number of messages.
    """
    newest_parked_at: AwareDatetime
    oldest_parked_at: AwareDatetime
    reason: Annotated[str, Field(examples=["missing_message_id"])]
    routing_key: str | None = None
    """
    `null` for messages without a routing key.
    """


class ParkedGroups(BaseModel):
    """
    Parked messages by reason and routing key.
    """

    groups: list[ParkedGroup]
    """
    At most 100 groups, the largest first.
    """
    has_more: bool
    """
    True if there are more groups.
    """
    searched_until: AwareDatetime | None = None
    """
    The time back to which messages were counted; `null` if all messages were counted.
    """


class Phases(BaseModel):
    """
    Durations of the phases, in milliseconds; `null` for an absent or incomplete phase.
    """

    connect_ms: float | None = None
    dns_ms: float | None = None
    first_byte_ms: float | None = None
    """
    From the start of the request on the connection to the head of the response.
    """
    tls_ms: float | None = None
    total_ms: float


class Plan(Limits):
    """
    A plan: limits that an application takes over by naming the plan.
    """

    applications: int
    """
    The number of applications in the plan.
    """
    changed_at: AwareDatetime
    created_at: AwareDatetime
    name: Annotated[str, Field(examples=["free"])]


class PortalLink(BaseModel):
    """
    A link that opens the portal once.
    """

    id: Annotated[str, Field(examples=["ses_01h455vb4pex5vsknk084sn02q"])]
    """
    The session that the link opens. `DELETE /sessions/{id}` revokes the link, and ends the session.
    """
    opens_until: AwareDatetime
    """
    The link opens until this time.
    """
    url: str
    """
    The link, shown only in this answer.
    """


class PortalTheme(BaseModel):
    """
    The look of the portal. All members are optional.
    """

    model_config = ConfigDict(
        extra="forbid",
    )
    accent: Annotated[str | None, Field(examples=["#0b57c2"])] = None
    """
    The colour of links and buttons. A colour without enough contrast (WCAG 2.2, 4.5:1) is darkened for light
    grounds and lightened for dark grounds.
    """
    density: str | None = None
    """
    `usual` or `compact`. Default: `usual`.
    """
    font: str | None = None
    """
    `system`, `serif` or `mono`. Default: `system`.
    """
    radius: Annotated[int | None, Field(examples=[6], ge=0)] = None
    """
    The radius of corners, in pixels: 0 to 12. Default: 6.
    """
    scheme: str | None = None
    """
    `auto`, `light` or `dark`. The visitor may choose another. Default: `auto`.
    """


class Preview(BaseModel):
    """
    Result of the checks.
    """

    events: CountedEvents | None = None
    url: CheckedUrl | None = None


class Process(BaseModel):
    """
    A process: alive, or dead for less than an hour.
    """

    attempts: Annotated[int, Field(ge=0)]
    """
    The attempts in the last 10 s.
    """
    backlogs: Annotated[int, Field(ge=0)]
    """
    The backlogs that the process drains, and those among them that wait for a place.
    """
    backlogs_waiting: Annotated[int, Field(ge=0)]
    bytes: Annotated[int, Field(ge=0)]
    bytes_used: Annotated[int, Field(ge=0)]
    """
    The bytes of the payloads in the places.
    """
    clock_offset_ms: Annotated[int, Field(ge=0)]
    configuration: int
    """
    The version of the loaded configuration: equal in processes with the same configuration.
    """
    differing_settings: dict[str, Any]
    """
    The settings that differ between processes, with the values of this process.
    """
    events: Annotated[int, Field(ge=0)]
    """
    The events in the last 10 s: persisted by a dispatcher, or published over HTTP.
    """
    events_in_hand: Annotated[int, Field(ge=0)]
    has_broker: bool
    has_database: bool
    host: str | None = None
    """
    The name of the machine or pod.
    """
    is_alive: bool
    kind: str
    """
    `dispatcher` or `ingest`.
    """
    lanes_open: Annotated[int, Field(ge=0)]
    lanes_slow: Annotated[int, Field(ge=0)]
    """
    The slow endpoints, and the endpoints left alone after many failures.
    """
    places: Annotated[int, Field(ge=0)]
    places_used: Annotated[int, Field(ge=0)]
    """
    The places in use: attempts in flight, or not yet recorded.
    """
    process: str
    """
    The id of the process, as in logs. A process gets a new id at each start.
    """
    retries_in_hand: Annotated[int, Field(ge=0)]
    seen_at: AwareDatetime | None = None
    """
    The last heartbeat.
    """
    started_at: AwareDatetime
    version: str


class Published(BaseModel):
    """
    An accepted event.
    """

    id: Annotated[str, Field(examples=["evt_01h455vb4pex5vsknk084sn02q"])]


class PublishedOrNot(BaseModel):
    """
    The result of an event in a batch.
    """

    success: bool
    data: Published | None = None
    error: Error | None = None


class Queue(BaseModel):
    """
    A queue of the broker.
    """

    consumers: int
    looked_at: AwareDatetime
    queue: Annotated[str, Field(examples=["events"])]
    """
    The name without the prefix.
    """
    ready: int
    """
    The messages that wait in the broker. Un-acked messages are not among them.
    """


class Quota(BaseModel):
    """
    A quota and its use.
    """

    limit: Annotated[int, Field(ge=0)]
    name: Annotated[str, Field(examples=["events_per_day"])]
    """
    `events_per_day` or `stored_bytes`.
    """
    percent: Annotated[int, Field(ge=0)]
    """
    The used share of the limit, in whole percent, rounded down.
    """
    renewed_at: AwareDatetime | None = None
    """
    The time at which the quota of events begins anew; absent for stored bytes.
    """
    state: str
    used: Annotated[int, Field(ge=0)]


class Received(BaseModel):
    """
    Response to a test.
    """

    body: str
    """
    The body of the response. Invalid UTF-8 is replaced.
    """
    headers: list[list[str]]
    status: Annotated[int | None, Field(ge=0)] = None


class RefusedPutBack(BaseModel):
    """
    A message that stays parked.
    """

    id: str
    message: str


class Remedy(BaseModel):
    """
    The next action of the reader.
    """

    action: Annotated[str, Field(examples=["resend"])]
    """
    `resume`, `enable`, `resend`, `wait`, `send`, `change_subscriptions`, `change_filter`, `resume_key`,
    `change_url`, `repair_certificate`, `check_signature`, `test`, `publish_again` or `put_back`.
    """
    delivery: str | None = None
    event: str | None = None
    parked: str | None = None
    """
    The parked message to put back.
    """
    until: AwareDatetime | None = None
    """
    The end of the wait.
    """
    webhook: str | None = None


class Removed(BaseModel):
    """
    Result of the removal of an event type.
    """

    deleted: Annotated[bool, Field(examples=[True])]
    name: str


class RemovedPlan(BaseModel):
    """
    Result of the removal of a plan.
    """

    name: str
    removed: Annotated[bool, Field(examples=[True])]


class Replay(BaseModel):
    """
    A replay with progress.
    """

    created_at: AwareDatetime
    deliveries: int
    """
    The number of deliveries sent again or created.
    """
    events: int
    """
    The number of events read.
    """
    finished_at: AwareDatetime | None = None
    id: Annotated[str, Field(examples=["rpl_01h455vb4pex5vsknk084sn02q"])]
    rate_per_second: Annotated[int, Field(ge=0)]
    reached: AwareDatetime | None = None
    """
    The acceptance time of the last event read by the replay.
    """
    since: AwareDatetime
    state: Annotated[str, Field(examples=["running"])]
    """
    `running`, `paused`, `cancelled` or `done`.
    """
    states: list[str]
    types: list[str]
    until: AwareDatetime
    webhook: str | None = None


class ReplayCount(BaseModel):
    """
    The result of a dry run.
    """

    deliveries: Annotated[int, Field(ge=0)]
    """
    The number of deliveries to send.
    """
    events: Annotated[int, Field(ge=0)]
    """
    The number of events read.
    """
    has_more: bool
    """
    True if more events may match: a dry run reads at most 20,000 events, with filters 1,000, and fewer with costly
    filters.
    """


class Resend(BaseModel):
    """
    Selects the deliveries to resend, newest first. A delivery must meet all conditions.
    """

    model_config = ConfigDict(
        extra="forbid",
    )
    after: str | None = None
    """
    Only deliveries newer than this delivery.
    """
    before: str | None = None
    """
    The `next` of an earlier answer: only older deliveries.
    """
    contains: str | None = None
    """
    Only deliveries with this text in the body or in a response, as in the list of deliveries.
    """
    count_only: bool | None = None
    """
    True to send nothing: the answer then has the deliveries that would be resent.
    """
    deliveries: list[str] | None = None
    """
    Only deliveries with these ids, 1 to 1000.
    """
    event: str | None = None
    """
    Only deliveries of this event.
    """
    limit: Annotated[int | None, Field(ge=0)] = None
    """
    1 to 1000. Default: 1000.
    """
    outcome: str | None = None
    """
    Only deliveries whose last attempt has this outcome, such as `timed_out`.
    """
    reason: str | None = None
    """
    Only deliveries with this reason.
    """
    since: AwareDatetime | None = None
    """
    Only deliveries of events accepted at or after this time.
    """
    state: str | None = None
    """
    Only deliveries in this state, or in one of several states separated by commas: `failed`, `skipped`,
    `delivered`, `scheduled`, `queued` or `held`. Default: `failed`; with `deliveries`, any of these states.
    """
    status: str | None = None
    """
    Only deliveries whose last response has this status, such as `503`, or a status of this class, such as `5xx`.
    """
    type: str | None = None
    """
    Only deliveries of events of this type, or of types such as `order.*`.
    """
    until: AwareDatetime | None = None
    """
    Only deliveries of events accepted before this time.
    """
    webhook: str | None = None
    """
    Only deliveries to this webhook.
    """


class Resent(BaseModel):
    """
    A delivery that was requested again.
    """

    attempt: Annotated[int, Field(ge=0)]
    """
    The number of the next attempt.
    """
    event: str
    id: str
    webhook: str


class ResumedKeys(BaseModel):
    """
    Number of resumed keys.
    """

    resumed: Annotated[int, Field(examples=[1], ge=0)]


class Rotated(BaseModel):
    """
    Result of a rotation.
    """

    id: str
    previous_secret_expires_at: AwareDatetime
    """
    The end of the overlap. Until then, `webhook-signature` has a signature by each secret, and the dialect's own
    header a signature by the previous secret.
    """
    secret: str
    """
    The new secret, shown only in this answer.
    """


class SchemaVersion(BaseModel):
    """
    A version of an event type's schema.
    """

    created_at: AwareDatetime
    name: Annotated[str, Field(examples=["invoice.paid"])]
    schema_: Annotated[Any, Field(alias="schema")]
    """
    JSON Schema, draft 2020-12.
    """
    version: Annotated[int, Field(examples=[1], ge=0)]


class SearchHit(BaseModel):
    """
    A found object.
    """

    application: str | None = None
    """
    The application of the object; `null` for a parked message or an admin key.
    """
    delivery: str | None = None
    """
    The delivery of an attempt; else `null`.
    """
    detail: str
    """
    A second line for people, such as the time of acceptance.
    """
    id: str
    """
    The id, such as `evt_…` or `wh_…`.
    """
    kind: str
    title: str
    """
    The name of the object for people, such as an event's type or a webhook's URL.
    """


class SecretRotation(BaseModel):
    """
    Rotation of a signing secret.
    """

    model_config = ConfigDict(
        extra="forbid",
    )
    overlap_seconds: Annotated[int | None, Field(ge=0)] = None
    """
    The time until the previous secret expires, in seconds: 0 to 2592000. Default: 86400 (a day).
    """
    secret: str | None = None
    """
    The new secret. Default: a generated secret.
    """


class SendEvent(BaseModel):
    """
    The webhook for an event.
    """

    model_config = ConfigDict(
        extra="forbid",
    )
    webhook: str


class Sent(BaseModel):
    """
    Request of a test.
    """

    body: str
    """
    The bytes of the body, except redacted members.
    """
    headers: list[list[str]]
    """
    Names and values. The values of the webhook's own headers are hidden.
    """
    url: str


class Session(BaseModel):
    """
    A session of the web pages, or a link that nobody has opened yet.
    """

    application: str | None = None
    """
    `null` for all applications.
    """
    created_at: AwareDatetime
    ends_at: AwareDatetime
    """
    The end of the session, used or not.
    """
    id: Annotated[str, Field(examples=["ses_01h455vb4pex5vsknk084sn02q"])]
    key: str | None = None
    """
    The API key of the sign-in. The session ends with the key.
    """
    name: str
    """
    The name of the visitor.
    """
    opens_until: AwareDatetime | None = None
    """
    Until this time the link opens; `null` for an open session.
    """
    pages: Annotated[str, Field(examples=["portal"])]
    """
    `console` or `portal`.
    """
    rights: list[str]
    """
    The rights of the session, such as `view` and `resend`.
    """
    seen_at: AwareDatetime
    """
    The time of the last request, accurate to a minute.
    """
    sign_in: Annotated[str, Field(examples=["link"])]
    """
    The proof of the visitor: `key`, `link`, `proxy` or `provider`.
    """


class ShownType(DescribedType):
    """
    A described event type with its schema.
    """

    schema_: Annotated[Any, Field(alias="schema")]
    """
    JSON Schema of the data, draft 2020-12; `null` without a schema.
    """


class SignatureMistake(BaseModel):
    """
    A mistake that was found.
    """

    code: Annotated[str, Field(examples=["body_printed_again"])]
    remedy: str
    """
    The remedy, in a sentence.
    """


class SignedRequest(BaseModel):
    """
    The request of a delivery, as it would be sent now.
    """

    body: str
    headers: list[list[str]]
    """
    Names and values of the headers. The values of the webhook's own headers are hidden.
    """
    signed_at: AwareDatetime
    """
    The time in the signature. Most receivers accept a signature for five minutes.
    """
    url: str


class SigningKey(BaseModel):
    """
    The public part of an Ed25519 key.
    """

    created_at: AwareDatetime
    expires_at: AwareDatetime | None = None
    """
    The end of the rotation's overlap, for the previous key; `null` for the current key.
    """
    kid: Annotated[str, Field(examples=["kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"])]
    """
    The key's id in the key set: the thumbprint of RFC 7638.
    """
    public_key: Annotated[
        str, Field(examples=["whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="])
    ]
    """
    The public key in the form of Standard Webhooks.
    """


class SigningKeyRotation(BaseModel):
    """
    Rotation of an application's signing key.
    """

    model_config = ConfigDict(
        extra="forbid",
    )
    overlap_seconds: Annotated[int | None, Field(ge=0)] = None
    """
    The time until the previous key ends, in seconds: 7200 to 2592000, or 0 for a leaked key. Default: 86400 (a
    day).
    """


class SigningKeys(BaseModel):
    """
    The Ed25519 keys of an application. The keys sign the deliveries to webhooks with `asymmetric`.
    """

    jwks_path: Annotated[
        str,
        Field(
            examples=["/api/v1/applications/app_01h455vb4pex5vsknk084sn02q/jwks.json"]
        ),
    ]
    """
    The path of the key set (JWKS) at this API, which needs no API key. The path never changes.
    """
    keys: list[SigningKey]
    """
    The keys in force, newest first; empty until a webhook asks for asymmetric signatures, or the first rotation.
    """


class StatsBucket(BaseModel):
    """
    Counts of a time. An attempt counts at its start, an event at its acceptance.
    """

    at: AwareDatetime
    """
    The beginning of the time.
    """
    duration: DurationPercentiles | None = None
    events: Annotated[int, Field(ge=0)]
    """
    The events; 0 for a webhook.
    """
    failed: Annotated[int, Field(ge=0)]
    """
    The failed attempts.
    """
    failures: FailuresByKind
    """
    The failed attempts by kind.
    """
    first_attempt: LagPercentiles | None = None
    taken: Annotated[int, Field(ge=0)]
    """
    The attempts that were taken.
    """
    unmatched: Annotated[int, Field(ge=0)]
    """
    The events without a matching webhook.
    """


class TemplateResult(BaseModel):
    """
    Body by a template for an event.
    """

    accepted_at: AwareDatetime | None = None
    body: Any
    """
    The body; `null` without a body.
    """
    error: str | None = None
    """
    Why there is no body.
    """
    event: str | None = None
    expression: str | None = None
    """
    The placeholder at fault.
    """
    pointer: str | None = None
    """
    JSON pointer to the text of the template at fault.
    """
    type: str


class TemplateTest(BaseModel):
    """
    Bodies by a template.
    """

    rendered: Annotated[int, Field(ge=0)]
    """
    The number of results with a body.
    """
    results: list[TemplateResult]
    save_error: str | None = None
    """
    Why a webhook with this template cannot be saved; `null` if it can.
    """
    tried_on: str
    """
    `events`, or `samples` without events.
    """


class TestResult(BaseModel):
    """
    Result of a test.
    """

    delivered: bool
    """
    True if the webhook accepted the event.
    """
    delivery: str
    """
    The id of the recorded delivery, with a single attempt.
    """
    error: str | None = None
    event: str
    outcome: Annotated[str, Field(examples=["answered"])]
    """
    `answered`, or the kind of failure, such as `timed_out`.
    """
    request: Sent
    response: Received | None = None
    timings: Phases


class TokenState(BaseModel):
    """
    State of a webhook's tokens.
    """

    error: Annotated[str | None, Field(examples=["the token server answers 503"])] = (
        None
    )
    """
    The reason of the last failure.
    """
    failed_at: AwareDatetime | None = None
    """
    The last failed fetch.
    """
    failing_since: AwareDatetime | None = None
    """
    The beginning of the failures; `null` if the last fetch brought a token.
    """
    token_until: AwareDatetime | None = None
    """
    The present token is sent until then; `null` without a token.
    """


class TroubledWebhook(BaseModel):
    """
    A webhook in trouble.
    """

    application: str
    application_name: str
    cause: Annotated[str | None, Field(examples=["401"])] = None
    """
    The status or the outcome of the last failed attempt.
    """
    duration_p95_ms: float | None = None
    """
    The 95th percentile of the attempts' durations in the last half hour; `null` without an attempt.
    """
    failing_since: AwareDatetime | None = None
    """
    The time since which each attempt failed, to five minutes.
    """
    failures: Annotated[int, Field(ge=0)]
    """
    The number of consecutive failed attempts; 0 without a queue.
    """
    name: str | None = None
    next_probe_at: AwareDatetime | None = None
    """
    The webhook gets no attempt before this time.
    """
    queue_reason: str | None = None
    """
    The reason of the queue, such as `breaker_open`; `null` without a queue.
    """
    url: str
    waiting: Annotated[int, Field(ge=0)]
    """
    The queued deliveries, counted up to 1,000.
    """
    webhook: str


class UsageDay(Figures):
    """
    Usage of a UTC day.
    """

    day: date
    final: bool
    """
    False while the figures may still change: until 24 hours after the end of the day.
    """


class UsageReport(BaseModel):
    """
    Usage of an application.
    """

    application: str
    counted_until: AwareDatetime
    """
    The time up to which events and attempts are counted.
    """
    days: list[UsageDay]
    """
    The days with usage, the oldest first.
    """
    from_: Annotated[date, Field(alias="from")]
    limits: Limits
    """
    The limits in force: the application's own, or else the plan's.
    """
    plan: str | None = None
    quotas: list[Quota]
    """
    The quotas with their use today. Empty without a quota.
    """
    to: date
    total: Figures
    """
    The sum of the days.
    """


class Verify(BaseModel):
    """
    A request as a receiver got it. Give `body` or `body_base64`.
    """

    model_config = ConfigDict(
        extra="forbid",
    )
    body: str | None = None
    """
    The body as exact text.
    """
    body_base64: str | None = None
    """
    The body's bytes in Base64.
    """
    computed: str | None = None
    """
    The signature that the receiver's code computed.
    """
    headers: dict[str, str]
    """
    The headers, at least those of the signature. Names in any case.
    """
    public_key: str | None = None
    """
    The public key that the receiver's code verifies `v1a` with: `whpk_…`, or its 32 bytes in Base64 or hexadecimal
    digits.
    """
    received_at: AwareDatetime | None = None
    """
    The time of the receiver's check, by the receiver's clock. Default: now.
    """


class WaitingKey(BaseModel):
    """
    An ordering key with open deliveries, or a parked key.
    """

    first: str | None = None
    """
    The first open delivery. The others wait until it has ended.
    """
    key: Annotated[str, Field(examples=["order-1001"])]
    open: int
    """
    The number of open deliveries, counted up to 10,000.
    """
    parked_at: AwareDatetime | None = None
    parked_by: str | None = None
    """
    The given-up delivery.
    """
    sequence: Annotated[int | None, Field(ge=0)] = None
    """
    The number of the first open delivery.
    """
    state: Annotated[str, Field(examples=["parked"])]
    """
    `open`, or `parked`: a delivery was given up, and the others wait until the key is resumed.
    """


class WebhookBacklog(BaseModel):
    """
    The backlog of a webhook: deliveries are queued because the webhook cannot take more now.
    """

    failures: Annotated[int, Field(ge=0)]
    """
    The number of consecutive failed attempts.
    """
    next_probe_at: AwareDatetime | None = None
    """
    The time of the next attempt after many consecutive failures; `null` without such a wait.
    """
    owner: str | None = None
    """
    The dispatcher that sends the backlog; `null` if no dispatcher does now. A dispatcher gets a new id at each
    start, and logs the id.
    """
    queued: Annotated[int, Field(examples=[120])]
    """
    The number of queued deliveries, counted up to 10,000.
    """
    rate_per_second: Annotated[int | None, Field(ge=0)] = None
    """
    The maximum of attempts per second over all dispatchers, from the webhook or the dialect; `null` for no limit.
    """
    reason: Annotated[str, Field(examples=["breaker_open"])]
    """
    The reason for the backlog: `breaker_open`, `retry_after`, `rate_limited`, `lane_full`, `paused` and others.
    """
    rests_until_at: AwareDatetime | None = None
    """
    The end of the wait that the webhook asked for by `Retry-After`; `null` without such a wait.
    """
    since: AwareDatetime
    """
    The start of the backlog.
    """
    webhook: str


class WebhookChange(BaseModel):
    """
    Changes to a webhook. Omitted fields keep their value.
    """

    model_config = ConfigDict(
        extra="forbid",
    )
    asymmetric: bool | None = None
    """
    `true`: `webhook-signature` also has an Ed25519 signature (`v1a`) by each signing key of the application.
    """
    authentication: NewAuthentication | None = None
    client_certificate: NewClientCertificate | None = None
    digest: bool | None = None
    """
    `true` with a feed: a daily event tells the number of deliveries and their hash, from the next UTC day on.
    """
    email: str | None = None
    """
    The e-mail address for failure notices; `null` for the application's address.
    """
    events: list[str] | None = None
    feed: str | None = None
    """
    `none`, or `copy`: the feed lists the deliveries from now on, too.
    """
    fifo: str | None = None
    """
    FIFO per ordering key: `block`, `skip:N` or `park`; `null`: at the same time.
    """
    filter: str | None = None
    """
    A condition in CEL; `null` for all events.
    """
    headers: dict[str, str] | None = None
    """
    The complete set of additional headers, at most 20. Replaces all previous headers. Required with another origin
    of `url` (scheme, host or port), if the webhook has own headers.
    """
    name: str | None = None
    rate_per_second: Annotated[int | None, Field(ge=0)] = None
    """
    The maximum of attempts per second, 1 to 10000; `null` for the dialect's limit, if any.
    """
    schedule: list[str] | None = None
    """
    The wait after each failed attempt; `null` for the dialect's schedule. Scheduled deliveries follow the new
    schedule from the next attempt on.
    """
    status: str | None = None
    template: Any | None = None
    """
    The form of the bodies; `null` for the dialect's form.
    """
    timeout_ms: Annotated[int | None, Field(ge=0)] = None
    """
    The deadline of an attempt in milliseconds, 100 to 60000; `null` for the dialect's deadline.
    """
    trace_context: bool | None = None
    """
    `true`: deliveries carry `traceparent` and `tracestate` (W3C Trace Context).
    """
    url: str | None = None


class WebhookConfig(BaseModel):
    """
    The configuration of a webhook.
    """

    created_at: AwareDatetime
    enabled: bool
    event_types: list[str]
    headers: list[str]
    """
    The names of the webhook's own headers. The values are never shown.
    """
    id: Annotated[str, Field(examples=["wh_01h455vb4pex5vsknk084sn02q"])]
    name: str | None = None
    secret: str | None = None
    """
    The signing secret, shown only when the configuration is created.
    """
    updated_at: AwareDatetime
    url: str


class WebhookConfigPut(BaseModel):
    """
    A configuration to create or change (upsert). `id` selects the configuration, or without an `id` the `url` does. An
    unknown `url` creates a configuration. Omitted fields keep their value.
    """

    model_config = ConfigDict(
        extra="forbid",
    )
    enabled: bool | None = None
    event_types: list[str] | None = None
    """
    Required for a new configuration.
    """
    headers: dict[str, str] | None = None
    """
    Required for another origin of the `url` (scheme, host or port), if the configuration has own headers.
    """
    id: str | None = None
    name: str | None = None
    secret: str | None = None
    """
    The new signing secret; replaces all previous secrets at once. Default for a new configuration: a generated
    secret.
    """
    url: str | None = None


class WebhookConfigPuts(RootModel[WebhookConfigPut | list[WebhookConfigPut]]):
    root: WebhookConfigPut | list[WebhookConfigPut]
    """
    A configuration, or a list of configurations.
    """


class WebhookHealth(BaseModel):
    """
    A webhook with its last day.
    """

    events: list[str]
    """
    The subscribed event types.
    """
    failing_since: AwareDatetime | None = None
    """
    The time since which each attempt failed, to five minutes; `null` if the last attempt was taken.
    """
    hours: list[HealthHour]
    """
    The last 24 hours, the oldest first.
    """
    last_failed: LastFailedDelivery | None = None
    name: str | None = None
    next_probe_at: AwareDatetime | None = None
    """
    The time of the next attempt after many consecutive failures; `null` without such a wait.
    """
    queue_reason: str | None = None
    """
    The reason of the queue, such as `breaker_open`; `null` without a queue.
    """
    queued: int
    """
    The queued deliveries, held if the webhook is paused, counted up to 1,000.
    """
    state: Annotated[str, Field(examples=["failing"])]
    """
    `enabled`, `failing`, `paused` or `disabled`. Failing: enabled, and each attempt has failed for ten minutes, or
    so many in a row that deliveries wait.
    """
    url: str
    webhook: Annotated[str, Field(examples=["wh_01h455vb4pex5vsknk084sn02q"])]


class WebhookLog(BaseModel):
    """
    An attempt, with the request and the response.
    """

    attempt: Annotated[int, Field(ge=0)]
    """
    The number of the attempt, from 1.
    """
    config_id: str
    created_at: AwareDatetime
    delivery_id: str
    duration_ms: int | None = None
    error: str | None = None
    """
    The cause of a missing or incomplete response.
    """
    event_id: str
    event_type: str
    id: Annotated[str, Field(examples=["att_01h455vb4pex5vsknk084sn02q"])]
    next_attempt_at: AwareDatetime | None = None
    outcome: Annotated[str, Field(examples=["answered"])]
    """
    `answered`, or the kind of failure, such as `timed_out`.
    """
    payload: Any
    """
    The body of the request; `null` for a body above 64 KiB: `GET /api/v1/deliveries/{id}` shows the body.
    """
    response_body: str | None = None
    response_status: int | None = None
    url: str | None = None
    """
    The URL of the request; `null` if the dispatcher died before the result was recorded.
    """


class WebhookPreview(BaseModel):
    """
    Settings of a webhook to check.
    """

    model_config = ConfigDict(
        extra="forbid",
    )
    events: list[str] | None = None
    """
    Subscriptions to event types.
    """
    url: str | None = None


class WebhookTemplate(BaseModel):
    """
    A template to begin with.
    """

    name: Annotated[str, Field(examples=["slack"])]
    """
    `slack`, `teams`, `discord`, `pagerduty` or `zapier`.
    """
    note: str
    """
    What the receiver needs, and its bounds.
    """
    sample: Any
    """
    The body for a sample.
    """
    template: Any
    """
    The template, for `template` of a webhook.
    """
    title: str


class Application(Limits):
    """
    An application: the tenant that owns webhooks, event types and keys.
    """

    created_at: AwareDatetime
    dialect: Annotated[str, Field(examples=["incenta"])]
    """
    The dialect: the format of deliveries, the default retry schedule, and the built-in event types.
    """
    email: str | None = None
    """
    The e-mail address for failure notices, if the dialect sends notices.
    """
    id: Annotated[str, Field(examples=["app_01h455vb4pex5vsknk084sn02q"])]
    labels: dict[str, str] | None = None
    """
    Labels by which operators find and sum up applications. Only for an admin key.
    """
    name: str
    plan: Annotated[str | None, Field(examples=["free"])] = None
    """
    The name of the plan, whose limits are those of the application.
    """
    redacted: list[str]
    """
    Members of bodies with values to hide: `password` at any depth, `card.number` in each `card`. Webhooks receive
    the values. Fanfare stores the values encrypted, and neither the API nor the database shows a value. Responses
    of webhooks are stored without the values.
    """
    strict: bool
    """
    True if events of undescribed types are refused, and subscriptions to undescribed types.
    """


class ApplicationUsage(Figures):
    """
    Usage of an application in a day or a month.
    """

    application: str
    final: bool
    """
    False while the figures may still change.
    """
    labels: dict[str, str]
    name: str
    plan: str | None = None


class Authentication(BaseModel):
    """
    Authentication of a webhook, without secrets.
    """

    audience: str | None = None
    client_authentication: str | None = None
    client_id: str | None = None
    scope: str | None = None
    state: TokenState | None = None
    token_url: str | None = None
    type: Annotated[str, Field(examples=["oauth2"])]
    """
    `basic`, `bearer` or `oauth2`.
    """
    username: str | None = None


class ComputedValue(BaseModel):
    """
    The explanation of a receiver's value.
    """

    header: str | None = None
    """
    The header whose value the code computes; `null` if unknown.
    """
    mistakes: list[SignatureMistake]
    """
    The mistakes that yield the value.
    """
    right: bool
    """
    True if the value is the right value of `header`.
    """


class ExplanationStep(BaseModel):
    """
    A step of an explanation.
    """

    code: Annotated[str, Field(examples=["other_types"])]
    """
    A code for programs, such as `accepted`, `other_types`, `held`, or the outcome of attempts.
    """
    evidence: list[Evidence]
    fault: str | None = None
    """
    The side at fault: `ours` (Fanfare), `theirs` (the receiver, or the webhook's settings), `publisher`.
    """
    remedy: Remedy | None = None
    sentence: str
    """
    The step in plain words.
    """
    state: Annotated[str, Field(examples=["problem"])]
    """
    `done`: the event passed the step; `problem`: the step kept the event from the webhook; `pending`: in progress;
    `info`: background.
    """


class Finding(BaseModel):
    """
    A trouble, with the next action.
    """

    action: str
    """
    The next action, as a sentence.
    """
    sentence: Annotated[
        str, Field(examples=["hooks.acme.example has failed since 14:02 UTC (401)."])
    ]
    """
    The trouble, as a sentence.
    """
    severity: Annotated[str, Field(examples=["warning"])]
    """
    `critical`, `warning` or `notice`.
    """
    since: AwareDatetime | None = None
    """
    The beginning of the trouble, if known.
    """
    subject: FindingSubject
    whose: Annotated[str, Field(examples=["theirs"])]
    """
    The side that must act: `ours` (the operators), `theirs` (an endpoint's owner) or `publisher`.
    """


class Found(BaseModel):
    """
    The result of a search.
    """

    hits: list[SearchHit]
    """
    At most 10 objects of each kind.
    """
    retention_seconds: Annotated[int, Field(ge=0)]
    """
    Events, deliveries and attempts are deleted after this time.
    """
    tried: list[str]
    """
    The look-ups of the search, in words.
    """


class Handled(BaseModel):
    """
    The messages put back or discarded by a request.
    """

    handled: list[str]
    has_more: bool
    """
    True if more messages may match: the request reached the limit of 100.
    """
    refused: list[RefusedPutBack]
    """
    Messages that stay parked, with the reason: Fanfare could not process these messages unchanged.
    """


class ManyResent(BaseModel):
    """
    Deliveries that were requested again.
    """

    deliveries: list[Resent]
    """
    The deliveries; with `count_only`, the deliveries that would be resent.
    """
    has_more: bool
    """
    True if more deliveries may match: the request reached the limit, or the bound of a search.
    """
    next: str | None = None
    """
    `before` of a request that goes on; `null` if `has_more` is false.
    """
    resent: Annotated[int, Field(ge=0)]
    """
    The number of `deliveries`.
    """
    searched_until: AwareDatetime | None = None
    """
    The time back to which a bounded search looked; `null` when all was looked through, or without a search.
    """


class NewPortalLink(BaseModel):
    """
    A link to the portal.
    """

    model_config = ConfigDict(
        extra="forbid",
    )
    back: Annotated[
        str | None, Field(examples=["https://app.example.com/settings"])
    ] = None
    """
    The address of the link *Back* on the portal's pages: a URL with https.
    """
    expires_in_seconds: Annotated[int | None, Field(ge=0)] = None
    """
    The time from the opening to the end of the session, in seconds: 60 to 43200. Default: 43200 (12 hours). A
    session also ends after an hour without a request.
    """
    name: Annotated[str, Field(examples=["Ada of Acme"])]
    """
    The person who gets the link, for the audit log and the list of sessions. Not an id.
    """
    rights: Annotated[
        list[str] | None,
        Field(examples=[["view", "payloads", "test", "resend", "endpoints"]]),
    ] = None
    """
    `view`, `payloads`, `keys`, `test`, `resend`, `endpoints`, `replay` and `cancel`. Every session may view.
    Default: `view`, `payloads`, `test`, `resend`.
    """
    theme: PortalTheme | None = None


class Overview(BaseModel):
    """
    The state of the deployment.
    """

    applications: list[LoudApplication]
    """
    The applications with the most events in the last minutes. At most 20.
    """
    at: AwareDatetime
    findings: list[Finding]
    """
    The troubles, the most urgent first.
    """
    headline: Headline
    jobs: list[Job]
    processes: list[Process]
    queues: list[Queue]
    summary: Annotated[str, Field(examples=["Fanfare keeps up."])]
    """
    The state in a sentence or two.
    """
    webhooks: list[TroubledWebhook]
    """
    Webhooks in trouble: an open breaker, or only failures. At most 50.
    """
    well: list[str]
    """
    Sentences of the checks without a finding.
    """


class Stats(BaseModel):
    """
    Counts of attempts and events over time.
    """

    buckets: list[StatsBucket]
    """
    Each step, the oldest first.
    """
    counted_until: AwareDatetime
    """
    The end of the counted time. Attempts are counted about two minutes after their start.
    """
    since: AwareDatetime
    step: Annotated[str, Field(examples=["1h"])]
    """
    `5m` or `1h`.
    """
    total: StatsBucket
    """
    The whole time.
    """
    until: AwareDatetime


class Verification(BaseModel):
    """
    The result of the trials. Neither secrets nor signatures are shown.
    """

    age_seconds: int | None = None
    """
    The seconds from `webhook-timestamp` to the check; negative if the receiver's clock is behind.
    """
    computed: ComputedValue | None = None
    header: Annotated[str | None, Field(examples=["webhook-signature"])] = None
    """
    The header with the right signature.
    """
    mistakes: list[SignatureMistake]
    """
    The mistakes that explain why no header has a right signature; empty if unknown.
    """
    out_of_tolerance: bool
    """
    True if these libraries refuse the time.
    """
    public_key: GivenPublicKey | None = None
    remedy: str
    """
    The next action, in a sentence.
    """
    secret: Annotated[str | None, Field(examples=["current"])] = None
    """
    The secret of the right signature: `current`; or `previous`, during a rotation. `null` if only a key made a
    right signature.
    """
    signing_keys: list[str]
    """
    The signing keys of the application with a right asymmetric signature (`v1a`) of these bytes, as `kid`.
    """
    timestamp: AwareDatetime | None = None
    """
    The time in `webhook-timestamp`.
    """
    tolerance_seconds: int
    """
    The tolerance of the libraries of Standard Webhooks, in seconds.
    """
    verifies: bool
    """
    True if a header has a right signature of these bytes.
    """


class Webhook(BaseModel):
    """
    A webhook.
    """

    asymmetric: bool
    """
    True if `webhook-signature` also has an Ed25519 signature (`v1a`) by each signing key of the application.
    """
    authentication: Authentication | None = None
    client_certificate: ClientCertificate | None = None
    created_at: AwareDatetime
    digest: bool
    """
    True if a daily event tells the number of deliveries and their hash.
    """
    digest_from: date | None = None
    """
    The first UTC day of the digests: the first whole day with the setting.
    """
    email: str | None = None
    """
    The webhook's own address for failure notices; `null` for the application's address.
    """
    events: list[str]
    expires_at: AwareDatetime | None = None
    """
    The deletion of a temporary webhook. Each read of the feed defers the deletion.
    """
    feed: Annotated[str, Field(examples=["none"])]
    """
    `none`; `copy`: the feed lists the deliveries, too; `only`: the feed lists the deliveries, and nothing is sent.
    """
    fifo: Annotated[str | None, Field(examples=["block"])] = None
    """
    `block`, `park` or `skip:N`: each ordering key gets a delivery when the delivery before has ended. `null`: at
    the same time.
    """
    filter: str | None = None
    """
    The condition on the events.
    """
    headers: list[str]
    """
    The names of the webhook's own headers. The values are never shown.
    """
    held: HeldDeliveries | None = None
    id: Annotated[str, Field(examples=["wh_01h455vb4pex5vsknk084sn02q"])]
    last_digest: LastDigest | None = None
    name: str | None = None
    parked_keys: Annotated[int | None, Field(ge=0)] = None
    """
    The number of parked ordering keys, counted up to 100; absent without any, and in lists.
    """
    previous_secret_expires_at: str | None = None
    """
    The end of a rotation's overlap: until then, the previous secret signs, too.
    """
    rate_per_second: Annotated[int | None, Field(ge=0)] = None
    """
    The webhook's own maximum of attempts per second; `null` for the dialect's limit, if any.
    """
    schedule: list[str] | None = None
    """
    The webhook's own wait after each failed attempt; `null` for the dialect's schedule.
    """
    secret: str | None = None
    """
    The signing secret, shown only when the webhook is created.
    """
    status: Annotated[str, Field(examples=["enabled"])]
    """
    `enabled`; `paused`: deliveries are held until the webhook is enabled; `disabled`: deliveries are recorded as
    skipped.
    """
    status_reason: str | None = None
    """
    The reason for a status set by Fanfare: `endpoint_gone` if a response, such as 410, disabled the webhook;
    `disabled_by_receiver` if the response had `webhook-action: disable`.
    """
    template: Any
    """
    The form of the bodies; `null` for the dialect's form.
    """
    timeout_ms: Annotated[int | None, Field(ge=0)] = None
    """
    The webhook's own deadline of an attempt, in milliseconds; `null` for the dialect's deadline.
    """
    trace_context: bool
    """
    True if deliveries carry `traceparent` and `tracestate`.
    """
    updated_at: AwareDatetime
    url: str
    warnings: list[str] | None = None
    """
    The entries of `events` that match no described event type. Only after a creation or change of `events`.
    """


class WebhookWay(BaseModel):
    """
    The way of an event to a webhook.
    """

    delivery: str | None = None
    """
    The delivery of the event; `null` without a delivery.
    """
    name: str | None = None
    state: Annotated[str | None, Field(examples=["failed"])] = None
    """
    The state of the delivery.
    """
    steps: list[ExplanationStep]
    """
    The steps, in order. The last step tells the present state.
    """
    url: str
    """
    The present URL.
    """
    webhook: str


class ApplicationOverview(BaseModel):
    """
    Findings of an application.
    """

    application: str
    at: AwareDatetime
    findings: list[Finding]
    """
    The troubles, the most urgent first.
    """
    well: list[str]
    """
    Sentences of the checks without a finding.
    """


class Explanation(BaseModel):
    """
    The explanation of an event's way.
    """

    event: str | None = None
    """
    The event; `null` if only an unreadable message has the key.
    """
    has_more: bool
    """
    True if the application has more webhooks.
    """
    steps: list[ExplanationStep]
    """
    The way of the event before any webhook, in order.
    """
    webhooks: list[WebhookWay]
    """
    The way to each webhook: first webhooks with a delivery of the event, then others, at most 20.
    """
