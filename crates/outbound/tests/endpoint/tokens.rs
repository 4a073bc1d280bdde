//! Tokens of token servers, through the same guard as deliveries.

use fanfare_domain::endpoint::{
    access_token::{GrantedToken, TokenFault},
    authentication::{ClientAuthentication, OAuth2},
};
use fanfare_outbound::Client;

use crate::receiver::{Receiver, client, read_request};
use tokio::io::AsyncWriteExt;

fn oauth2(url: &str) -> OAuth2 {
    OAuth2 {
        token_url: url.parse().expect("URL"),
        client_id: "shop".to_owned(),
        client_secret: "s3cret".to_owned().into(),
        scope: Some("events".to_owned()),
        audience: None,
        client_authentication: ClientAuthentication::Body,
    }
}

async fn fetched(client: &Client, answer: String) -> Result<GrantedToken, TokenFault> {
    let receiver = Receiver::answering(answer).await;
    client.fetch_token(&oauth2(&receiver.url())).await
}

#[tokio::test]
async fn a_token_is_asked_for_as_the_rfc_says() {
    let receiver = Receiver::start(|mut stream| async move {
        let request = read_request(&mut stream).await?;
        let lower = request.to_lowercase();
        assert!(lower.starts_with("post /hooks?a=1 http/1.1"), "{request}");
        assert!(lower.contains("content-type: application/x-www-form-urlencoded"), "{request}");
        assert!(lower.contains("accept: application/json") && !lower.contains("authorization:"), "{request}");
        let form = "grant_type=client_credentials&scope=events&client_id=shop&client_secret=s3cret";
        assert!(request.ends_with(form), "{request}");
        let body = r#"{"access_token":"t1","token_type":"Bearer","expires_in":60}"#;
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all(format!("{head}{body}").as_bytes()).await
    })
    .await;
    let granted = client().fetch_token(&oauth2(&receiver.url())).await.expect("a token");
    assert_eq!((granted.token.reveal(), granted.life.as_secs()), ("t1", 60));
}

#[tokio::test]
async fn a_hostile_answer_yields_a_reason_without_its_text() {
    let client = client();
    let with_body = |status: &str, body: &str| {
        format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nlocation: http://127.0.0.1:1/\r\n\r\n{body}", body.len())
    };
    for (answer, fault) in [
        (with_body("200 OK", &"x".repeat(100_000)), TokenFault::TooLong),
        (with_body("302 Found", "hidden"), TokenFault::Status(302)),
        (with_body("200 OK", "<html>hidden</html>"), TokenFault::Unreadable),
    ] {
        assert_eq!(fetched(&client, answer).await, Err(fault));
    }
    let no_http = fetched(&client, "hidden nonsense\r\n\r\n".to_owned()).await;
    assert!(matches!(&no_http, Err(TokenFault::NoAnswer(text)) if !text.contains("hidden")), "{no_http:?}");
}

#[tokio::test]
async fn a_forbidden_address_is_not_asked() {
    let receiver = Receiver::answering("HTTP/1.1 200 OK\r\n\r\n").await;
    let guarded = Client::new(&fanfare_outbound::Settings::default()).expect("client");
    let fault = guarded.fetch_token(&oauth2(&receiver.url())).await;
    assert!(matches!(fault, Err(TokenFault::NoAnswer(_))), "{fault:?}");
    assert_eq!(receiver.accepted(), 0);
}
