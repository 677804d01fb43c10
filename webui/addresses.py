"""Which addresses a URL may lead to: only those of the public internet.

Pure. Every check is on the address that is connected to, never on the name:
`webui.fetch` calls this after resolution, for each redirect again.
"""

from __future__ import annotations

import ipaddress

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# Prefixes that carry an IPv4 address inside an IPv6 one. What stands behind
# them depends on the machine's own translators, so they are refused whole,
# except the mapped form, which is the IPv4 address itself.
TRANSLATED = tuple(
    ipaddress.IPv6Network(network)
    for network in (
        "::/96",  # IPv4-compatible, RFC 4291 2.5.5.1
        "::ffff:0:0:0/96",  # SIIT, RFC 2765
        "64:ff9b::/96",  # NAT64, RFC 6052
        "64:ff9b:1::/48",  # local NAT64, RFC 8215
        "2001::/32",  # Teredo, RFC 4380
        "2002::/16",  # 6to4, RFC 3056
        "fec0::/10",  # site-local, RFC 3879
    )
)
# Assigned to protocols (RFC 6890) and 6to4 relays (RFC 7526); Python's own
# answer for these differs between its versions.
PROTOCOL = tuple(map(ipaddress.IPv4Network, ("192.0.0.0/24", "192.88.99.0/24")))


def refusal(text: str) -> str | None:
    """Say why an address must not be connected to, or None where it may.

    `text` is a numeric address as a resolver gives it, perhaps with a scope.
    """
    try:
        address = ipaddress.ip_address(text.split("%", 1)[0])
    except ValueError:
        return f"{text!r} isn't an address"
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return refusal(str(address.ipv4_mapped))
        if any(address in network for network in TRANSLATED):
            return f"{address} is a translated or reserved address"
    elif any(address in network for network in PROTOCOL):
        return f"{address} is a reserved address"
    return _kind_refused(address)


def _kind_refused(address: Address) -> str | None:
    kinds = (
        (address.is_loopback, "loopback"),
        (address.is_link_local, "link-local"),
        (address.is_multicast, "multicast"),
        (address.is_unspecified, "unspecified"),
        (address.is_private, "private"),
        (address.is_reserved or not address.is_global, "reserved"),
    )
    for refused, kind in kinds:
        if refused:
            return f"{address} is a {kind} address"
    return None
