//! The only place where names and comments of kernel objects are made.
//!
//! A name is a readable part plus sixteen characters of a SHA-256 over everything that the object stands for, so
//! that two objects never share a name and one object always has the same. The readable part is cut; the hash
//! is not, and it stands in front of it.
//!
//! The hash is a matter of security, too. Whoever may write policies in one namespace chooses what is hashed for them;
//! one that hashed like the selector of another namespace would share its set, and so be let in there. Eighty bits
//! cannot be searched for that; the forty that would do against chance can be, in minutes.

use std::fmt;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::TableFamily;
use crate::api::{Direction, PolicyKey};

/// `NFT_NAME_MAXLEN` of `linux/netfilter/nf_tables.h`, which counts the closing NUL.
const NAME_MAX: usize = 256;
/// The readable part of a name. With prefix, hash and family it stays far below [`NAME_MAX`], and a line of
/// `nft list` stays legible.
const READABLE_MAX: usize = 96;
/// The longest prefix (`ingress-pods-` and the like), the hash, the family and the dashes between them.
const FIXED_MAX: usize = 40;
/// nft prints comments of up to 127 characters and hides longer ones.
const COMMENT_MAX: usize = 127;

const _: () = assert!(READABLE_MAX + FIXED_MAX < NAME_MAX, "a name must fit the kernel's limit");

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(TableFamily, Arc<str>);

        impl $name {
            /// Takes a name in table `inet postern` as the kernel reports it.
            pub fn from_kernel(name: &str) -> Self {
                Self::in_table(TableFamily::Inet, name)
            }

            /// Takes a name in the table of a family as the kernel reports it.
            pub fn in_table(family: TableFamily, name: &str) -> Self {
                Self(family, name.into())
            }

            /// The family of the table in which it is a name.
            pub fn family(&self) -> TableFamily {
                self.0
            }

            /// The name as the kernel knows it, without NUL.
            pub fn as_str(&self) -> &str {
                &self.1
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.1)
            }
        }
    };
}

name_type! {
    /// The name of a chain.
    ChainName
}
name_type! {
    /// The name of a set or of a verdict map: the kernel keeps both in one name space.
    SetName
}
name_type! {
    /// The name of a counter object.
    CounterName
}

/// A comment: at most 127 printable ASCII characters without a double quote.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Comment(Arc<str>);

impl ChainName {
    /// A chain that every table has once, such as `ingress` or `deny-egress`.
    pub(super) fn fixed(name: &'static str) -> ChainName {
        ChainName::from_kernel(name)
    }

    /// `<prefix>-<hash>-<readable>`; `identity` is what the chain stands for.
    pub(super) fn hashed(prefix: &str, identity: &str, readable: &str) -> ChainName {
        ChainName::from_kernel(&hashed(prefix, identity, readable))
    }
}

impl ChainName {
    /// The chain of a policy in one direction: `<direction>-np-<hash>-<policy>`.
    pub(crate) fn of_policy(direction: Direction, key: &PolicyKey) -> ChainName {
        let key = key.to_string();
        ChainName::hashed(&format!("{}-np", direction.as_str()), &key, &key)
    }

    /// The chain that leads to several policies in one direction: `<direction>-list-<hash>`.
    pub(super) fn of_list(direction: Direction, keys: &[&PolicyKey]) -> ChainName {
        let keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
        ChainName::hashed(&format!("{}-list", direction.as_str()), &keys.join("\n"), "")
    }

    /// Whether this is the chain of a policy. Such a chain only ever accepts: without rules it allows nothing.
    pub fn is_of_policy(&self) -> bool {
        self.is_of("-np-")
    }

    /// Whether this is the chain that leads to several policies.
    pub(crate) fn is_of_list(&self) -> bool {
        self.is_of("-list-")
    }

    fn is_of(&self, kind: &str) -> bool {
        Direction::ALL
            .iter()
            .any(|direction| self.1.strip_prefix(direction.as_str()).is_some_and(|rest| rest.starts_with(kind)))
    }
}

impl SetName {
    /// A set that every table has once, such as `ingress-pods-v4`.
    pub(super) fn fixed(name: &str) -> SetName {
        SetName::from_kernel(name)
    }

    /// `<prefix>-<hash>-<readable>`; `identity` is what the set stands for.
    pub(super) fn hashed(prefix: &str, identity: &str, readable: &str) -> SetName {
        SetName::from_kernel(&hashed(prefix, identity, readable))
    }
}

impl CounterName {
    /// A counter that every table has once.
    pub(super) fn fixed(name: &'static str) -> CounterName {
        CounterName::from_kernel(name)
    }
}

impl Comment {
    /// Takes a comment as the kernel reports it.
    pub fn from_kernel(text: &str) -> Comment {
        Comment(text.into())
    }

    /// The text, without NUL.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Makes a comment of any text: what nft could not print or parse becomes `?`, and what is too long is cut
    /// and ends in `...`.
    pub fn new(text: &str) -> Comment {
        let legal = |c: char| if (c.is_ascii_graphic() || c == ' ') && c != '"' { c } else { '?' };
        if text.chars().count() <= COMMENT_MAX {
            return Comment(text.chars().map(legal).collect::<String>().into());
        }
        let kept: String = text.chars().take(COMMENT_MAX - 3).map(legal).collect();
        Comment(format!("{kept}...").into())
    }
}

impl fmt::Display for Comment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn hashed(prefix: &str, identity: &str, readable: &str) -> String {
    let hash = hash16(identity);
    // nft's identifiers are letters, digits and `/ \ _ . -`, and start with a letter.
    let legal = |c: char| if c.is_ascii_alphanumeric() || "/_.-".contains(c) { c } else { '_' };
    let readable: String = readable.chars().take(READABLE_MAX).map(legal).collect();
    let name = if readable.is_empty() { format!("{prefix}-{hash}") } else { format!("{prefix}-{hash}-{readable}") };
    debug_assert!(name.len() < NAME_MAX, "the parts are bounded above");
    name
}

/// Sixteen characters of Crockford's base 32 (no I, L, O, U): 80 bits of a SHA-256.
fn hash16(identity: &str) -> String {
    const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    let digest = Sha256::digest(identity.as_bytes());
    let bits = digest.iter().take(10).fold(0u128, |bits, byte| (bits << 8) | u128::from(*byte));
    (0..16).rev().map(|i| char::from(ALPHABET[((bits >> (5 * i)) & 31) as usize])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longest_kubernetes_names_fit() {
        let readable = format!("{}/{}", "n".repeat(63), "p".repeat(253));
        let name = ChainName::hashed("ingress-np", &readable, &readable);
        assert!(name.as_str().len() < NAME_MAX, "{} is {} long", name, name.as_str().len());
        let other = ChainName::hashed("ingress-np", &format!("{readable}x"), &readable);
        assert_ne!(name, other, "names that are cut still differ by their hash");
    }

    #[test]
    fn the_hash_is_eighty_bits_of_sha_256() {
        // SHA-256 of "abc" begins with ba7816bf8f01cfea4141 (FIPS 180-4).
        assert_eq!(ChainName::hashed("pods", "abc", "").as_str(), "pods-Q9W1DFWF077YMGA1");
    }

    #[test]
    fn names_are_identifiers_of_nft() {
        let name = SetName::hashed("pods", "x", "Ns:a b\"/é");
        assert!(name.as_str().ends_with("Ns_a_b_/_"), "{name}");
    }

    #[test]
    fn comments_are_cut_and_cleaned() {
        assert_eq!(Comment::new("a \"b\"\n").as_str(), "a ?b??");
        let long = Comment::new(&"x".repeat(200));
        assert_eq!(long.as_str().len(), COMMENT_MAX);
        assert!(long.as_str().ends_with("x..."));
        assert_eq!(Comment::new(&"x".repeat(127)).as_str(), "x".repeat(127));
    }
}
