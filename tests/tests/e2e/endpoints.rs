//! Life cycle of endpoints over the management API and the command `fanfare`: created, changed, paused, disabled and
//! deleted. Also: visibility.

mod access;
mod client_certificates;
mod life;
mod webhooks;

use fanfare_tests::clients::api::Answer;

const NO_WEBHOOK: &str = "webhooks/wh_00000000000000000000000000";
const NO_APPLICATION: &str = "app_00000000000000000000000000";

/// An expected refusal: status, code, and the field if the error names a field.
type Refusal = (u16, &'static str, &'static str);

fn assert_refused(what: &str, answer: &Answer, refusal: Refusal) {
    assert_eq!((answer.status, answer.code(), answer.field()), refusal, "{what}: {}", answer.body);
}
