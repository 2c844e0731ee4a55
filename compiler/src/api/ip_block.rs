//! `ipBlock`: a CIDR with its exceptions.

use std::fmt;

use ipnet::IpNet;

/// `ipBlock` of a peer. Both the CIDR and the exceptions are networks without host bits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IpBlock {
    /// `cidr`
    pub cidr: IpNet,
    /// `except`: carved out of this block, and of no other. Each lies within `cidr`.
    pub except: Vec<IpNet>,
}

impl fmt::Display for IpBlock {
    /// `172.17.0.0/16 except 172.17.1.0/24`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.cidr)?;
        for (i, except) in self.except.iter().enumerate() {
            write!(f, "{}{except}", if i == 0 { " except " } else { "," })?;
        }
        Ok(())
    }
}
