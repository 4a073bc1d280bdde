//! E-mail addresses for notices about failed deliveries.

use email_address::{EmailAddress, Options};

/// The text is not an e-mail address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not an e-mail address, such as owner@example.com")]
pub struct InvalidEmail;

/// Checks an address (RFC 5321): the mailbox alone, without a display name.
///
/// # Errors
/// If the text is anything else.
pub fn check_email(text: &str) -> Result<(), InvalidEmail> {
    let options = Options::default().without_display_text().without_domain_literal().with_required_tld();
    let address = EmailAddress::parse_with_options(text, options).map_err(|_| InvalidEmail)?;
    // The library accepts blanks and angle brackets around a mailbox, even without a display name.
    if address.email() == text { Ok(()) } else { Err(InvalidEmail) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_mailbox_without_further_text() {
        assert_eq!(check_email("owner+fanfare@mail.example.com"), Ok(()));
        for text in [
            "",
            "owner",
            "owner@",
            "@example.com",
            "owner@host",
            "Owner <owner@example.com>",
            " <owner@example.com>",
            "<owner@example.com>",
            "a@example.com, b@example.com",
            "owner@example.com\r\nBcc: other@example.com",
            "owner@[127.0.0.1]",
            &format!("{}@example.com", "a".repeat(65)),
        ] {
            assert_eq!(check_email(text), Err(InvalidEmail), "{text}");
        }
    }
}
