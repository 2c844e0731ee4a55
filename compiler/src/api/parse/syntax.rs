//! The syntax of names, label keys and label values.
//!
//! Sources: "Object Names and IDs" and "Labels and Selectors" of the Kubernetes documentation; RFC 6335 section
//! 5.1 for names of ports.

/// Whether this is a label of a DNS name (RFC 1123): what names of Namespaces are.
pub(super) fn is_dns_label(text: &str) -> bool {
    text.len() <= 63 && is_bounded(text, |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit(), |byte| byte == b'-')
}

/// Whether this is a DNS name (RFC 1123): what names of most objects are.
pub(super) fn is_dns_subdomain(text: &str) -> bool {
    text.len() <= 253
        && text.split('.').all(|label| {
            is_bounded(label, |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit(), |byte| byte == b'-')
        })
}

/// Whether this is a label key: a name, or a DNS name, a slash and a name.
pub(super) fn is_label_key(text: &str) -> bool {
    let (prefix, name) = text.split_once('/').map_or((None, text), |(prefix, name)| (Some(prefix), name));
    prefix.is_none_or(is_dns_subdomain) && !name.is_empty() && is_label_value(name)
}

/// Whether this is a label value. The empty one is.
pub(super) fn is_label_value(text: &str) -> bool {
    text.is_empty()
        || text.len() <= 63
            && is_bounded(text, |byte| byte.is_ascii_alphanumeric(), |byte| matches!(byte, b'-' | b'_' | b'.'))
}

/// Whether this is the name of a port (`IANA_SVC_NAME`).
pub(super) fn is_port_name(text: &str) -> bool {
    text.len() <= 15
        && is_bounded(text, |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit(), |byte| byte == b'-')
        && text.bytes().any(|byte| byte.is_ascii_lowercase())
        && !text.contains("--")
}

/// Whether the text is not empty, has `outer` bytes at both ends, and `outer` or `inner` ones between.
fn is_bounded(text: &str, outer: impl Fn(u8) -> bool, inner: impl Fn(u8) -> bool) -> bool {
    let bytes = text.as_bytes();
    bytes.first().is_some_and(|&first| outer(first))
        && bytes.last().is_some_and(|&last| outer(last))
        && bytes.iter().all(|&byte| outer(byte) || inner(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let longest = "a".repeat(63);
        for good in ["a", "0", "a-b", "kube-system", &longest] {
            assert!(is_dns_label(good), "{good}");
            assert!(is_dns_subdomain(good), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a_b", "a b", "ä", "a\"b", &"a".repeat(64)] {
            assert!(!is_dns_label(bad), "{bad}");
        }
        assert!(is_dns_subdomain("a.b-c.d"));
        assert!(is_dns_subdomain(&["a"; 127].join(".")));
        for bad in ["a..b", ".a", "a.", "a.-b", &"a".repeat(254)] {
            assert!(!is_dns_subdomain(bad), "{bad}");
        }
    }

    #[test]
    fn labels() {
        let longest = format!("{}/{}", ["a"; 127].join("."), "N".repeat(63));
        for good in ["a", "A_b.c-D", "k8s-app", "app.kubernetes.io/name", "kubernetes.io/metadata.name", &longest] {
            assert!(is_label_key(good), "{good}");
        }
        for bad in ["", "/a", "a/", "a/b/c", "A.b/c", "_a", "a_", "a b", &"a".repeat(64)] {
            assert!(!is_label_key(bad), "{bad}");
        }
        for good in ["", "a", "1", "A-b_c.D", &"a".repeat(63)] {
            assert!(is_label_value(good), "{good}");
        }
        for bad in ["-", "a/b", ".a", "a b", &"a".repeat(64)] {
            assert!(!is_label_value(bad), "{bad}");
        }
    }

    #[test]
    fn port_names() {
        for good in ["http", "a", "8a", "dns-tcp", "fifteen-letters"] {
            assert!(is_port_name(good), "{good}");
        }
        for bad in ["", "80", "HTTP", "a--b", "-a", "a-", "a_b", "sixteen-letters-"] {
            assert!(!is_port_name(bad), "{bad}");
        }
    }
}
