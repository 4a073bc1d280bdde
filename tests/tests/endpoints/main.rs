//! Endpoints over their life, by the management API and by the command `fanfare`: made, changed, paused,
//! disabled, deleted, and who may see which.

mod access;
mod life;
mod webhooks;

use fanfare_tests::client::Answer;

const NO_WEBHOOK: &str = "webhooks/wh_00000000000000000000000000";
const NO_APPLICATION: &str = "app_00000000000000000000000000";

/// What a refusal must say: status, code and field, where it is about one.
type Refusal = (u16, &'static str, &'static str);

fn assert_refused(what: &str, answer: &Answer, refusal: Refusal) {
    assert_eq!((answer.status, answer.code(), answer.field()), refusal, "{what}: {}", answer.body);
}
