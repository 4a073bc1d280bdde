//! Tokens of token servers (OAuth 2.0, client credentials), fetched through the same guard as deliveries.

use std::time::Duration;

use bytes::Bytes;
use fanfare_domain::{
    delivery::outcome::Outcome,
    endpoint::{
        access_token::{GrantedToken, TokenFault, parse_answer},
        authentication::OAuth2,
    },
};
use http::{
    HeaderMap, HeaderValue,
    header::{ACCEPT, AUTHORIZATION},
};

use crate::{Client, MAX_RESPONSE_BODY, Request};

/// Deadline of a fetch.
const DEADLINE: Duration = Duration::from_secs(10);

const FORM: HeaderValue = HeaderValue::from_static("application/x-www-form-urlencoded");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

impl Client {
    /// Fetches a token, once. The fault shows nothing of the answer but a registered error code.
    ///
    /// # Errors
    /// The reason why there is no token.
    pub async fn fetch_token(&self, oauth2: &OAuth2) -> Result<GrantedToken, TokenFault> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, JSON);
        if let Some(header) = oauth2.header() {
            headers.insert(AUTHORIZATION, header);
        }
        let request = Request {
            url: oauth2.token_url.clone(),
            headers,
            content_type: FORM,
            body: Bytes::from(oauth2.form()),
            deadline: DEADLINE,
            certificate: None,
        };
        // The answer is shown to nobody, and may have the credential by chance.
        let exchange =
            self.post_openly(request).await.map_err(|error| TokenFault::EgressUnavailable(error.to_string()))?;
        let status = match exchange.outcome {
            Outcome::Answered { status, .. } => status,
            _ => return Err(TokenFault::NoAnswer(exchange.error.unwrap_or_default())),
        };
        if status == 200 && exchange.error.is_some() {
            return Err(TokenFault::Incomplete);
        }
        if exchange.response_body.len() >= MAX_RESPONSE_BODY {
            return Err(TokenFault::TooLong);
        }
        parse_answer(status, &exchange.response_body)
    }
}
