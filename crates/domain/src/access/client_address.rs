//! The client's address of a request that passed proxies.

use std::net::IpAddr;

use ipnet::IpNet;

/// The client's address: the peer, or, behind `trusted` proxies, the last entry of `X-Forwarded-For` that is no trusted
/// proxy.
///
/// Each proxy appends the address of the caller. An entry before a trusted proxy's entry may be forged. An unreadable
/// entry ends the search.
pub fn client_address<'a>(
    peer: IpAddr,
    forwarded: impl DoubleEndedIterator<Item = &'a str>,
    trusted: &[IpNet],
) -> IpAddr {
    let mut address = peer.to_canonical();
    let mut before = forwarded.flat_map(|value| value.split(',')).rev();
    while trusted.iter().any(|net| net.contains(&address)) {
        let Some(named) = before.next().and_then(|text| text.trim().parse::<IpAddr>().ok()) else { break };
        address = named.to_canonical();
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(peer: &str, forwarded: &[&str], trusted: &[&str]) -> String {
        let trusted: Vec<IpNet> = trusted.iter().map(|net| net.parse().expect("network")).collect();
        client_address(peer.parse().expect("address"), forwarded.iter().copied(), &trusted).to_string()
    }

    #[test]
    fn only_forwarded_addresses_of_trusted_proxies_count() {
        assert_eq!(of("8.8.8.8", &["1.1.1.1"], &[]), "8.8.8.8");
        assert_eq!(of("8.8.8.8", &["1.1.1.1"], &["10.0.0.0/8"]), "8.8.8.8");
        assert_eq!(of("10.0.0.1", &["9.9.9.9, 1.1.1.1"], &["10.0.0.0/8"]), "1.1.1.1");
        assert_eq!(of("10.0.0.1", &["9.9.9.9", "1.1.1.1, 10.0.0.2"], &["10.0.0.0/8"]), "1.1.1.1");
        assert_eq!(of("::ffff:10.0.0.1", &["2606::1"], &["10.0.0.0/8"]), "2606::1");
    }

    #[test]
    fn an_invalid_forwarded_address_ends_the_walk() {
        assert_eq!(of("10.0.0.1", &[], &["10.0.0.0/8"]), "10.0.0.1");
        assert_eq!(of("10.0.0.1", &["1.1.1.1, unknown"], &["10.0.0.0/8"]), "10.0.0.1");
        assert_eq!(of("10.0.0.1", &["10.0.0.3, 10.0.0.2"], &["10.0.0.0/8"]), "10.0.0.3");
    }
}
