//! Names of network links.

use std::fmt;

/// The length of a name with its NUL, `IFNAMSIZ` of `linux/if.h`.
const LONGEST: usize = 16;

/// The name of a link of the node, padded with NULs as the kernel compares it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkName([u8; LONGEST]);

impl LinkName {
    /// A name of 1 to 15 bytes; `None` is no name of a link.
    pub fn new(name: &str) -> Option<LinkName> {
        let mut bytes = [0; LONGEST];
        let is_name = !name.is_empty() && !name.contains('\0') && name.len() < LONGEST;
        bytes.get_mut(..name.len()).filter(|_| is_name)?.copy_from_slice(name.as_bytes());
        Some(LinkName(bytes))
    }

    /// Takes a name as the kernel compares it; `None` is none.
    pub fn from_kernel(bytes: &[u8]) -> Option<LinkName> {
        let text = std::str::from_utf8(bytes).ok().filter(|_| bytes.len() == LONGEST)?;
        LinkName::new(text.trim_end_matches('\0'))
    }

    /// The name with its padding.
    pub fn as_bytes(&self) -> &[u8; LONGEST] {
        &self.0
    }
}

impl fmt::Display for LinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = std::str::from_utf8(&self.0).expect("it was made of a text");
        f.write_str(text.trim_end_matches('\0'))
    }
}

impl fmt::Debug for LinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_of_one_to_fifteen_bytes() {
        for name in ["a", "veth0123456789a"] {
            let link = LinkName::new(name).unwrap();
            assert_eq!((link.to_string().as_str(), LinkName::from_kernel(link.as_bytes())), (name, Some(link)));
        }
        for name in ["", "veth0123456789ab", "a\0b"] {
            assert_eq!(LinkName::new(name), None, "{name:?}");
        }
        for bytes in [&b"veth0"[..], &[0; 16], b"a\0b\0\0\0\0\0\0\0\0\0\0\0\0\0", &[0xff; 16]] {
            assert_eq!(LinkName::from_kernel(bytes), None, "{bytes:?}");
        }
    }
}
