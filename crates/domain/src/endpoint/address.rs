//! IP addresses that may be called.
//!
//! Customers choose the URLs that Fanfare calls from inside the operator's network. An address outside of the public
//! internet is therefore refused, unless the operator has allowed the address. The check of the dialled address, after
//! DNS, is the protection; a check of a URL is only a courtesy.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// The built-in denial, the networks excepted from the denial, and the networks denied in addition.
///
/// - The operator's denial beats every other rule. Examples are an own public network whose services trust their
///   neighbours, and the prefix of an own NAT64 (RFC 6052), which looks like any other prefix.
/// - An IPv6 address that maps an IPv4 address (`::ffff:a.b.c.d`) is judged as the IPv4 address, to which the kernel
///   connects. An entry for an IPv4 network therefore covers both spellings.
/// - The allow-list beats the built-in denial, with the following two exceptions.
/// - A cloud's metadata service hands out credentials to any caller. Only an entry for exactly that address (`/32` or
///   `/128`) permits the address, never an entry for a surrounding network.
/// - An IPv6 address that carries an IPv4 address to a translator (NAT64, 6to4 …) also needs permission for the IPv4
///   address. Allowing `64:ff9b::/96` on a host without IPv4 must not open `127.0.0.1` or `10.0.0.0/8`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AddressPolicy {
    allow: Vec<IpNet>,
    deny: Vec<IpNet>,
}

impl AddressPolicy {
    /// Creates a policy that excepts `allow` from the denial and denies `deny` in addition.
    pub fn new(allow: Vec<IpNet>, deny: Vec<IpNet>) -> Self {
        let canonical = |nets: Vec<IpNet>| nets.into_iter().map(canonical).collect();
        Self { allow: canonical(allow), deny: canonical(deny) }
    }

    /// True if a connection to the address is permitted.
    pub fn permits(&self, address: IpAddr) -> bool {
        self.refusal(address).is_none()
    }

    /// The reason for refusing the address, as the rest of the sentence "it is …"; `None` if permitted.
    pub fn refusal(&self, address: IpAddr) -> Option<&'static str> {
        let address = address.to_canonical();
        if self.deny.iter().any(|net| net.contains(&address)) {
            return Some("in a network that the operator of this system has excluded");
        }
        if is_metadata_service(address) {
            let named = self.allow.iter().any(|net| net.prefix_len() == net.max_prefix_len() && net.contains(&address));
            return (!named).then_some("the metadata service of a cloud");
        }
        if self.allow.iter().any(|net| net.contains(&address)) {
            return carried_v4(address).and_then(|carried| self.refusal(carried.into()));
        }
        match address {
            IpAddr::V4(address) => refused_v4(address),
            IpAddr::V6(address) => refused_v6(address),
        }
    }

    /// True if the operator has excepted any network. Only then is a name of the local network useful.
    pub fn has_exceptions(&self) -> bool {
        !self.allow.is_empty()
    }
}

/// Converts an entry to the spelling of compared addresses: `::ffff:10.0.0.0/104` becomes `10.0.0.0/8`.
fn canonical(net: IpNet) -> IpNet {
    let mapped = net.addr().to_canonical();
    match (net, mapped, net.prefix_len().checked_sub(96)) {
        (IpNet::V6(_), IpAddr::V4(_), Some(prefix)) => IpNet::new(mapped, prefix).unwrap_or(net),
        _ => net,
    }
}

/// True for addresses that serve a machine's credentials or identity to any process on the machine.
fn is_metadata_service(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => METADATA_V4.contains(&address),
        IpAddr::V6(address) => METADATA_V6.contains(&address),
    }
}

const METADATA_V4: [Ipv4Addr; 7] = [
    Ipv4Addr::new(169, 254, 169, 254), // AWS, Azure, Google, Oracle, OpenStack and most others
    Ipv4Addr::new(169, 254, 170, 2),   // AWS ECS task credentials
    Ipv4Addr::new(169, 254, 170, 23),  // AWS EKS pod identity
    Ipv4Addr::new(169, 254, 42, 42),   // Scaleway
    Ipv4Addr::new(100, 100, 100, 200), // Alibaba Cloud
    Ipv4Addr::new(192, 0, 0, 192),     // Oracle Cloud, classic
    Ipv4Addr::new(168, 63, 129, 16),   // Azure WireServer: a public address, reachable from each Azure VM
];

const METADATA_V6: [Ipv6Addr; 5] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),   // AWS
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23),    // AWS EKS pod identity
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),    // Google Cloud
    Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42),     // Scaleway
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0xa9fe, 0xa9fe), // OpenStack
];

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

/// The IANA special-purpose registry (RFC 6890 and later), except for globally reachable networks.
const DENIED_V4: [(Ipv4Net, &str); 15] = [
    (v4(0, 0, 0, 0, 8), "an address of this host"), // Linux connects 0.0.0.0 to the loopback
    (v4(10, 0, 0, 0, 8), "private (RFC 1918)"),
    (v4(100, 64, 0, 0, 10), "shared address space of a carrier (RFC 6598)"), // also inside clouds and VPNs
    (v4(127, 0, 0, 0, 8), "loopback"),
    (v4(169, 254, 0, 0, 16), "link-local"),
    (v4(172, 16, 0, 0, 12), "private (RFC 1918)"),
    (v4(192, 0, 0, 0, 24), "reserved for protocol assignments (RFC 6890)"),
    (v4(192, 0, 2, 0, 24), "for documentation (RFC 5737)"),
    (v4(192, 88, 99, 0, 24), "a 6to4 relay (RFC 7526)"), // would forward the packet to an IPv6 address
    (v4(192, 168, 0, 0, 16), "private (RFC 1918)"),
    (v4(198, 18, 0, 0, 15), "for benchmarks (RFC 2544)"), // in use like a private network
    (v4(198, 51, 100, 0, 24), "for documentation (RFC 5737)"),
    (v4(203, 0, 113, 0, 24), "for documentation (RFC 5737)"),
    (v4(224, 0, 0, 0, 4), "multicast"),
    (v4(240, 0, 0, 0, 4), "reserved (RFC 1112)"), // with the broadcast address
];

fn refused_v4(address: Ipv4Addr) -> Option<&'static str> {
    DENIED_V4.iter().find(|(net, _)| net.contains(&address)).map(|&(_, reason)| reason)
}

const fn v6(first: u16, second: u16, third: u16, prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(first, second, third, 0, 0, 0, 0, 0), prefix)
}

/// The only part of IPv6 that is routed on the internet today. Every other address is refused.
const GLOBAL_UNICAST: Ipv6Net = v6(0x2000, 0, 0, 3);

/// Networks refused inside [`GLOBAL_UNICAST`], and common networks outside of it with a specific reason.
const DENIED_V6: [(Ipv6Net, &str); 10] = [
    (v6(0x2001, 0, 0, 23), "reserved for protocol assignments (RFC 2928)"), // Teredo, ORCHID, benchmarks
    (v6(0x2001, 0xdb8, 0, 32), "for documentation (RFC 3849)"),
    (v6(0x2002, 0, 0, 16), "an IPv4 address inside 6to4 (RFC 3056)"),
    (v6(0x3fff, 0, 0, 20), "for documentation (RFC 9637)"),
    (v6(0x64, 0xff9b, 0, 96), "an IPv4 address behind NAT64 (RFC 6052)"),
    (v6(0x64, 0xff9b, 1, 48), "an IPv4 address behind a local NAT64 (RFC 8215)"),
    (v6(0, 0, 0, 8), "loopback, unspecified or an IPv4 address in disguise"), // ::1, ::, ::a.b.c.d, ::ffff:0:a.b.c.d
    (v6(0xfc00, 0, 0, 7), "private (unique local, RFC 4193)"),
    (v6(0xfe80, 0, 0, 10), "link-local"),
    (v6(0xff00, 0, 0, 8), "multicast"),
];

fn refused_v6(address: Ipv6Addr) -> Option<&'static str> {
    if isatap(address).is_some() {
        return Some("an IPv4 address inside ISATAP (RFC 5214)");
    }
    let denied = DENIED_V6.iter().find(|(net, _)| net.contains(&address)).map(|&(_, reason)| reason);
    denied.or_else(|| (!GLOBAL_UNICAST.contains(&address)).then_some("outside the global unicast addresses of IPv6"))
}

/// The IPv4 destination of a packet to this IPv6 address, for the known encodings.
///
/// A local NAT64 (`64:ff9b:1::/48`) is read in the `/96` form, with the address in the last 32 bits.
fn carried_v4(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(address) = address else { return None };
    let at = |high: u16, low: u16| Some(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)));
    match address.segments() {
        // IPv4-compatible; `::` and `::1` have the same form, but encode no IPv4 address.
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => at(high, low),
        // SIIT (RFC 2765) and NAT64
        [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x64, 0xff9b, 1, _, _, _, high, low] => at(high, low),
        // 6to4
        [0x2002, high, low, ..] => at(high, low),
        // Teredo keeps the client's address inverted.
        [0x2001, 0, .., high, low] => at(!high, !low),
        _ => isatap(address),
    }
}

/// The IPv4 address of an ISATAP interface (RFC 5214, 6.1), in any network.
fn isatap(address: Ipv6Addr) -> Option<Ipv4Addr> {
    match address.segments() {
        [.., 0 | 0x200, 0x5efe, high, low] => Some(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn allowing(nets: &[&str]) -> AddressPolicy {
        AddressPolicy::new(nets.iter().map(|net| net.parse().expect("network")).collect(), Vec::new())
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("address")
    }

    /// All IPv6 spellings of an IPv4 address.
    fn spellings(address: Ipv4Addr) -> Vec<Ipv6Addr> {
        let bits = u32::from(address);
        let (high, low) = ((bits >> 16) as u16, bits as u16);
        vec![
            address.to_ipv6_mapped(),
            Ipv6Addr::new(0, 0, 0, 0, 0, 0, high, low),
            Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, high, low),
            Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
            Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, high, low),
            Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
            Ipv6Addr::new(0x2001, 0, 0x0808, 0x0808, 0, 0, !high, !low),
            Ipv6Addr::new(0x2606, 0x4700, 0, 0, 0, 0x5efe, high, low),
            Ipv6Addr::new(0x2606, 0x4700, 0, 0, 0x200, 0x5efe, high, low),
        ]
    }

    #[test]
    fn the_first_and_the_last_of_each_denied_network_are_refused_and_their_neighbours_are_not() {
        let policy = AddressPolicy::default();
        for (net, _) in DENIED_V4 {
            assert!(!policy.permits(net.network().into()) && !policy.permits(net.broadcast().into()), "{net}");
        }
        for neighbour in [
            "1.0.0.0",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "172.15.255.255",
            "172.32.0.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "8.8.8.8",
            "168.63.129.17",
        ] {
            assert_eq!(policy.refusal(ip(neighbour)), None, "{neighbour}");
        }
        for public in ["2606:4700::1111", "2a00:1450:4001::200e", "2001:200::1", "2003::1", "3ffe:ffff::1"] {
            assert_eq!(policy.refusal(ip(public)), None, "{public}");
        }
        for refused in [
            "::",
            "::1",
            "fc00::1",
            "fdff::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "100::1",
            "5f00::1",
            "4000::1",
            "2001:1ff:ffff::1",
            "2001:db8::1",
            "2002::1",
            "3fff:fff::1",
            "64:ff9b::808:808",
        ] {
            assert!(!policy.permits(ip(refused)), "{refused}");
        }
    }

    #[test]
    fn metadata_needs_an_entry_of_its_own() {
        for address in METADATA_V4.map(IpAddr::from).into_iter().chain(METADATA_V6.map(IpAddr::from)) {
            assert!(
                !allowing(&["0.0.0.0/0", "::/0", "169.254.0.0/16", "168.63.129.0/24"]).permits(address),
                "{address}"
            );
            assert!(allowing(&[&format!("{}", IpNet::from(address))]).permits(address), "{address}");
        }
        assert!(!allowing(&["::/0", "169.254.0.0/16"]).permits(ip("64:ff9b::169.254.169.254")));
        assert!(!allowing(&["169.254.0.0/16"]).permits(ip("::ffff:169.254.169.254")));
    }

    #[test]
    fn a_denied_address_is_refused_even_if_allowed() {
        let net = |text: &str| text.parse::<IpNet>().expect("network");
        let allow = vec![net("10.0.0.0/8"), net("64:ff9b::/96")];
        let policy = AddressPolicy::new(allow, vec![net("10.0.0.0/16"), net("8.8.0.0/16"), net("2a00:1450::/32")]);
        for denied in ["10.0.1.1", "::ffff:10.0.1.1", "8.8.8.8", "64:ff9b::8.8.8.8", "2a00:1450:4001::200e"] {
            assert!(!policy.permits(ip(denied)), "{denied}");
        }
        assert!(policy.permits(ip("10.1.0.1")) && policy.permits(ip("8.9.0.1")));
        assert!(policy.permits(ip("64:ff9b::8.9.0.1")) && policy.permits(ip("2a01::1")));
    }

    #[test]
    fn the_allow_list_is_read_in_either_spelling() {
        for net in ["10.1.0.0/16", "::ffff:10.1.0.0/112"] {
            let policy = allowing(&[net]);
            assert!(policy.permits(ip("10.1.2.3")) && policy.permits(ip("::ffff:10.1.2.3")), "{net}");
            assert!(!policy.permits(ip("10.2.0.1")) && !policy.permits(ip("127.0.0.1")), "{net}");
        }
        assert!(allowing(&["::1/128"]).permits(ip("::1")));
        assert!(allowing(&["64:ff9b::/96"]).permits(ip("64:ff9b::8.8.8.8")));
        assert!(!allowing(&["64:ff9b::/96"]).permits(ip("64:ff9b::10.0.0.1")));
    }

    proptest! {
        #[test]
        fn a_forbidden_v4_is_refused_in_every_spelling(bits: u32) {
            let address = Ipv4Addr::from(bits);
            let policy = AddressPolicy::default();
            // Without an exception, no carrier is permitted; mapping changes nothing.
            for spelling in &spellings(address)[1..] {
                prop_assert!(!policy.permits((*spelling).into()), "{}", spelling);
            }
            prop_assert_eq!(policy.permits(address.to_ipv6_mapped().into()), policy.permits(address.into()));
        }

        #[test]
        fn opening_all_of_v6_opens_no_forbidden_v4(net in 0..DENIED_V4.len(), host: u32) {
            let (net, _) = DENIED_V4[net];
            let address = Ipv4Addr::from(u32::from(net.network()) | host & u32::from(net.hostmask()));
            let policy = allowing(&["::/0"]);
            prop_assert!(!policy.permits(address.into()));
            for spelling in spellings(address) {
                // `::` and `::0.0.x.y` name no IPv4 address, see `carried_v4`.
                if spelling.segments()[..7] != [0; 7] {
                    prop_assert!(!policy.permits(spelling.into()), "{}", spelling);
                }
            }
        }

        #[test]
        fn an_exception_never_refuses_more(bits: u128, v4: u32, allowed: u128, prefix in 0u8..=128) {
            let net = IpNet::new(Ipv6Addr::from(allowed).into(), prefix).expect("prefix");
            for address in [IpAddr::from(Ipv6Addr::from(bits)), IpAddr::from(Ipv4Addr::from(v4))] {
                let (without, with) = (AddressPolicy::default(), AddressPolicy::new(vec![net], Vec::new()));
                prop_assert!(!without.permits(address) || with.permits(address));
            }
        }
    }
}
