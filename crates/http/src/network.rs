//! Addresses that an operator names.

use std::{fmt, net::IpAddr};

use ipnet::{IpNet, Ipv4Net};

/// An address, or all that share their first bits with one: `10.0.0.0/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(IpNet);

impl Network {
    /// An address, or an address with a number of leading bits.
    pub fn parse(text: &str) -> Option<Self> {
        let net = match text.contains('/') {
            true => text.parse().ok()?,
            false => IpNet::from(text.parse::<IpAddr>().ok()?),
        };
        Some(Self(canonical(net)))
    }

    /// Whether `address` is one of them. An IPv4 address may come mapped into IPv6.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

/// IPv4 networks as such, also where they were written mapped into IPv6.
fn canonical(net: IpNet) -> IpNet {
    if let (IpAddr::V4(address), Some(bits)) =
        (net.addr().to_canonical(), net.prefix_len().checked_sub(96))
        && let Ok(mapped) = Ipv4Net::new(address, bits)
        && matches!(net, IpNet::V6(_))
    {
        return mapped.into();
    }
    net
}

impl From<IpAddr> for Network {
    fn from(address: IpAddr) -> Self {
        Self(address.to_canonical().into())
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.trunc().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects: who is trusted is who was named, in either family's spelling.
    #[test]
    fn a_network_holds_its_addresses() {
        for (network, address, held) in [
            ("10.0.0.0/8", "10.200.3.4", true),
            ("10.9.8.7/8", "10.200.3.4", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3", "10.1.2.4", false),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("10.0.0.0/8", "::ffff:10.0.0.1", true),
            ("::ffff:10.0.0.0/104", "10.200.3.4", true),
            ("::ffff:10.0.0.0/104", "11.0.0.1", false),
            ("::ffff:10.1.2.3", "10.1.2.3", true),
            ("fd00::/8", "fd12::1", true),
            ("fd00::/8", "10.0.0.1", false),
            ("::/0", "::1", true),
        ] {
            let parsed = Network::parse(network).unwrap();
            let contains = parsed.contains(address.parse().unwrap());
            assert_eq!(contains, held, "{network} {address}");
        }
        for bad in [
            "",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/-1",
            "example.com",
            "10.0.0/8",
        ] {
            assert_eq!(Network::parse(bad), None, "{bad}");
        }
    }
}
