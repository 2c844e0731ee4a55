//! Numbers of the kernel's headers, under the names that they have there.
//!
//! They are copied by number: the headers of the machine that builds may be older than what is used here. A module
//! stands for a prefix, so `set::KEY_LEN` is `NFTA_SET_KEY_LEN`. Unless a line says otherwise they are from
//! `linux/netfilter/nf_tables.h`.

/// `linux/netlink.h`: flags, types and attributes of netlink itself.
pub(crate) mod nl {
    pub(crate) const F_REQUEST: u16 = 0x1;
    pub(crate) const F_ACK: u16 = 0x4;
    pub(crate) const F_DUMP_INTR: u16 = 0x10;
    pub(crate) const F_DUMP: u16 = 0x300;
    pub(crate) const F_EXCL: u16 = 0x200;
    pub(crate) const F_CREATE: u16 = 0x400;
    pub(crate) const F_APPEND: u16 = 0x800;
    /// `NLM_F_CAPPED`: the error does not repeat the message that it answers.
    pub(crate) const F_CAPPED: u16 = 0x100;
    /// `NLM_F_ACK_TLVS`: attributes follow the error.
    pub(crate) const F_ACK_TLVS: u16 = 0x200;
    pub(crate) const MSG_ERROR: u16 = 2;
    pub(crate) const MSG_DONE: u16 = 3;
    /// `NLMSGERR_ATTR_OFFS`, in host order.
    pub(crate) const ERR_ATTR_OFFS: u16 = 2;
    /// `NLA_F_NESTED`
    pub(crate) const ATTR_NESTED: u16 = 0x8000;
    /// `NLA_TYPE_MASK`
    pub(crate) const ATTR_TYPE_MASK: u16 = 0x3fff;
    /// The length of `struct nlmsghdr`.
    pub(crate) const HEADER: usize = 16;
    /// The length of `struct nlmsghdr` and `struct nfgenmsg` together.
    pub(crate) const NFGEN_HEADER: usize = 20;
}

/// `linux/netfilter/nfnetlink.h`
pub(crate) mod nfnl {
    pub(crate) const SUBSYS_CTNETLINK: u16 = 1;
    pub(crate) const SUBSYS_ULOG: u16 = 4;
    pub(crate) const SUBSYS_NFTABLES: u16 = 10;
    pub(crate) const MSG_BATCH_BEGIN: u16 = 16;
    pub(crate) const MSG_BATCH_END: u16 = 17;
    pub(crate) const BATCH_GENID: u16 = 1;
}

/// `linux/netfilter.h`: `NFPROTO_*`
pub(crate) mod nfproto {
    pub(crate) const UNSPEC: u8 = 0;
    pub(crate) const INET: u8 = 1;
    pub(crate) const NETDEV: u8 = 5;
    pub(crate) const BRIDGE: u8 = 7;
    pub(crate) const IPV4: u8 = 2;
    pub(crate) const IPV6: u8 = 10;
}

/// `linux/netfilter.h`: the default verdicts of base chains, which are also codes of verdicts.
pub(crate) mod nf {
    pub(crate) const DROP: i32 = 0;
    pub(crate) const ACCEPT: i32 = 1;
}

/// `NFT_JUMP` and its siblings: verdict codes besides `NF_DROP` and `NF_ACCEPT`.
pub(crate) mod verdict {
    pub(crate) const JUMP: i32 = -3;
    pub(crate) const GOTO: i32 = -4;
    pub(crate) const RETURN: i32 = -5;
}

/// `enum nf_tables_msg_types`
pub(crate) mod msg {
    pub(crate) const NEWTABLE: u16 = 0;
    pub(crate) const GETTABLE: u16 = 1;
    pub(crate) const DELTABLE: u16 = 2;
    pub(crate) const NEWCHAIN: u16 = 3;
    pub(crate) const GETCHAIN: u16 = 4;
    pub(crate) const DELCHAIN: u16 = 5;
    pub(crate) const NEWRULE: u16 = 6;
    pub(crate) const GETRULE: u16 = 7;
    pub(crate) const DELRULE: u16 = 8;
    pub(crate) const NEWSET: u16 = 9;
    pub(crate) const GETSET: u16 = 10;
    pub(crate) const DELSET: u16 = 11;
    pub(crate) const NEWSETELEM: u16 = 12;
    pub(crate) const GETSETELEM: u16 = 13;
    pub(crate) const DELSETELEM: u16 = 14;
    pub(crate) const NEWGEN: u16 = 15;
    pub(crate) const GETGEN: u16 = 16;
    pub(crate) const NEWOBJ: u16 = 18;
    pub(crate) const GETOBJ: u16 = 19;
    pub(crate) const DELOBJ: u16 = 20;
    pub(crate) const NEWFLOWTABLE: u16 = 22;
    pub(crate) const GETFLOWTABLE: u16 = 23;
}

/// `enum nft_list_attributes`
pub(crate) const LIST_ELEM: u16 = 1;

/// `NFTA_GEN_*`
pub(crate) mod generation {
    pub(crate) const ID: u16 = 1;
}

/// `NFTA_TABLE_*`, `NFT_TABLE_F_*`
pub(crate) mod table {
    pub(crate) const NAME: u16 = 1;
    pub(crate) const FLAGS: u16 = 2;
    pub(crate) const OWNER: u16 = 7;
    pub(crate) const F_OWNER: u32 = 2;
    pub(crate) const F_PERSIST: u32 = 4;
}

/// `NFTA_CHAIN_*`, `NFTA_HOOK_*`, `NFT_CHAIN_*`
pub(crate) mod chain {
    pub(crate) const TABLE: u16 = 1;
    pub(crate) const NAME: u16 = 3;
    pub(crate) const HOOK: u16 = 4;
    pub(crate) const POLICY: u16 = 5;
    pub(crate) const TYPE: u16 = 7;
    pub(crate) const FLAGS: u16 = 10;
    pub(crate) const USERDATA: u16 = 12;
    pub(crate) const HOOK_HOOKNUM: u16 = 1;
    pub(crate) const HOOK_PRIORITY: u16 = 2;
    pub(crate) const HOOK_DEV: u16 = 3;
    pub(crate) const HOOK_DEVS: u16 = 4;
    pub(crate) const F_BASE: u32 = 1;
}

/// `NFTA_RULE_*`, `NFTA_EXPR_*`
pub(crate) mod rule {
    pub(crate) const TABLE: u16 = 1;
    pub(crate) const CHAIN: u16 = 2;
    pub(crate) const EXPRESSIONS: u16 = 4;
    pub(crate) const COMPAT: u16 = 5;
    pub(crate) const USERDATA: u16 = 7;
    pub(crate) const EXPR_NAME: u16 = 1;
    pub(crate) const EXPR_DATA: u16 = 2;
    /// `NFTA_TARGET_NAME`
    pub(crate) const TARGET_NAME: u16 = 1;
    /// `NFTA_TARGET_INFO`: the target's own structure.
    pub(crate) const TARGET_INFO: u16 = 3;
    /// `XT_CT_NOTRACK` of `linux/netfilter/xt_CT.h`, in the first field of `struct xt_ct_target_info`.
    pub(crate) const CT_NOTRACK: u16 = 1;
}

/// `NFTA_SET_*`, `NFT_SET_*`
pub(crate) mod set {
    pub(crate) const TABLE: u16 = 1;
    pub(crate) const NAME: u16 = 2;
    pub(crate) const FLAGS: u16 = 3;
    pub(crate) const KEY_TYPE: u16 = 4;
    pub(crate) const KEY_LEN: u16 = 5;
    pub(crate) const DATA_TYPE: u16 = 6;
    pub(crate) const DATA_LEN: u16 = 7;
    pub(crate) const DESC: u16 = 9;
    pub(crate) const ID: u16 = 10;
    pub(crate) const TIMEOUT: u16 = 11;
    pub(crate) const USERDATA: u16 = 13;
    pub(crate) const EXPR: u16 = 17;
    pub(crate) const EXPRESSIONS: u16 = 18;
    pub(crate) const DESC_SIZE: u16 = 1;
    pub(crate) const DESC_CONCAT: u16 = 2;
    pub(crate) const FIELD_LEN: u16 = 1;
    pub(crate) const F_INTERVAL: u32 = 0x4;
    pub(crate) const F_MAP: u32 = 0x8;
    pub(crate) const F_TIMEOUT: u32 = 0x10;
    /// `NFT_SET_EVAL`: rules add elements, which may have expressions.
    pub(crate) const F_EVAL: u32 = 0x20;
    pub(crate) const F_CONCAT: u32 = 0x80;
    /// `NFT_DATA_VERDICT`: the data type of a verdict map.
    pub(crate) const DATA_VERDICT: u32 = 0xffff_ff00;
    /// The length of a verdict in a set: `sizeof(struct nft_verdict)` on a 64-bit kernel.
    pub(crate) const VERDICT_LEN: u32 = 16;
}

/// `NFTA_SET_ELEM_*`, `NFTA_SET_ELEM_LIST_*`, `NFT_SET_ELEM_*`
pub(crate) mod elem {
    pub(crate) const LIST_TABLE: u16 = 1;
    pub(crate) const LIST_SET: u16 = 2;
    pub(crate) const LIST_ELEMENTS: u16 = 3;
    pub(crate) const KEY: u16 = 1;
    pub(crate) const DATA: u16 = 2;
    pub(crate) const FLAGS: u16 = 3;
    pub(crate) const TIMEOUT: u16 = 4;
    pub(crate) const USERDATA: u16 = 6;
    pub(crate) const EXPR: u16 = 7;
    pub(crate) const OBJREF: u16 = 9;
    pub(crate) const KEY_END: u16 = 10;
    pub(crate) const EXPRESSIONS: u16 = 11;
    pub(crate) const F_INTERVAL_END: u32 = 1;
}

/// `NFTA_DATA_*`, `NFTA_VERDICT_*`
pub(crate) mod data {
    pub(crate) const VALUE: u16 = 1;
    pub(crate) const VERDICT: u16 = 2;
    pub(crate) const VERDICT_CODE: u16 = 1;
    pub(crate) const VERDICT_CHAIN: u16 = 2;
}

/// `NFTA_OBJ_*`, `NFT_OBJECT_*`
pub(crate) mod obj {
    pub(crate) const TABLE: u16 = 1;
    pub(crate) const NAME: u16 = 2;
    pub(crate) const TYPE: u16 = 3;
    pub(crate) const DATA: u16 = 4;
    pub(crate) const TYPE_COUNTER: u32 = 1;
}

/// `NFTA_FLOWTABLE_*`
pub(crate) mod flowtable {
    pub(crate) const TABLE: u16 = 1;
    pub(crate) const NAME: u16 = 2;
}

/// `NFTA_COUNTER_*`
pub(crate) mod counter {
    pub(crate) const BYTES: u16 = 1;
    pub(crate) const PACKETS: u16 = 2;
}

/// The numbers by which `nft` tells types of keys apart (`enum datatypes` of its `datatype.h`). The kernel only
/// stores them.
pub(crate) mod datatype {
    pub(crate) const IPADDR: u32 = 7;
    pub(crate) const IP6ADDR: u32 = 8;
    pub(crate) const INET_PROTOCOL: u32 = 12;
    pub(crate) const INET_SERVICE: u32 = 13;
    pub(crate) const IFNAME: u32 = 41;
    /// `TYPE_BITS`: the width of each type in that of a concatenation.
    pub(crate) const BITS: u32 = 6;
}

/// Types of the values in user data (`libnftnl/udata.h`). The kernel only stores them.
pub(crate) mod udata {
    /// `NFTNL_UDATA_RULE_COMMENT`, and the same for chains and set elements.
    pub(crate) const COMMENT: u8 = 0;
    /// `NFTNL_UDATA_SET_COMMENT`
    pub(crate) const SET_COMMENT: u8 = 7;
    /// `NFTNL_UDATA_SET_KEYBYTEORDER`
    pub(crate) const SET_KEYBYTEORDER: u8 = 0;
    /// `BYTEORDER_HOST_ENDIAN` of nft's `datatype.h`
    pub(crate) const HOST_ORDER: u32 = 1;
}

/// `linux/netfilter/nfnetlink_conntrack.h`: `IPCTNL_MSG_CT_*`
pub(crate) mod ct_msg {
    pub(crate) const NEW: u16 = 0;
    pub(crate) const GET: u16 = 1;
    pub(crate) const DELETE: u16 = 2;
}

/// `linux/netfilter/nfnetlink_compat.h`: `NFNLGRP_CONNTRACK_*`
pub(crate) mod ct_group {
    pub(crate) const NEW: u32 = 1;
    pub(crate) const DESTROY: u32 = 3;
}

/// `linux/netfilter/nf_conntrack_common.h`: `IPS_*`
pub(crate) mod ips {
    pub(crate) const SEEN_REPLY: u32 = 1 << 1;
    pub(crate) const ASSURED: u32 = 1 << 2;
}

/// `linux/netfilter/nfnetlink_conntrack.h`: `CTA_*`
pub(crate) mod cta {
    pub(crate) const TUPLE_ORIG: u16 = 1;
    pub(crate) const TUPLE_REPLY: u16 = 2;
    pub(crate) const STATUS: u16 = 3;
    pub(crate) const PROTOINFO: u16 = 4;
    pub(crate) const TIMEOUT: u16 = 7;
    pub(crate) const COUNTERS_ORIG: u16 = 9;
    pub(crate) const COUNTERS_REPLY: u16 = 10;
    pub(crate) const ZONE: u16 = 18;
    pub(crate) const TIMESTAMP: u16 = 20;
    pub(crate) const COUNTERS_PACKETS: u16 = 1;
    pub(crate) const COUNTERS_BYTES: u16 = 2;
    pub(crate) const TIMESTAMP_START: u16 = 1;
    pub(crate) const TUPLE_IP: u16 = 1;
    pub(crate) const TUPLE_PROTO: u16 = 2;
    pub(crate) const TUPLE_ZONE: u16 = 3;
    pub(crate) const IP_V4_SRC: u16 = 1;
    pub(crate) const IP_V4_DST: u16 = 2;
    pub(crate) const IP_V6_SRC: u16 = 3;
    pub(crate) const IP_V6_DST: u16 = 4;
    pub(crate) const PROTO_NUM: u16 = 1;
    pub(crate) const PROTO_SRC_PORT: u16 = 2;
    pub(crate) const PROTO_DST_PORT: u16 = 3;
    pub(crate) const PROTOINFO_TCP: u16 = 1;
    pub(crate) const PROTOINFO_TCP_STATE: u16 = 1;
    pub(crate) const PROTOINFO_SCTP: u16 = 3;
    pub(crate) const PROTOINFO_SCTP_STATE: u16 = 1;
}

/// `linux/netfilter/nfnetlink_log.h`: `NFULNL_*`, `NFULA_*`, `NFULA_CFG_*`
pub(crate) mod log {
    pub(crate) const MSG_PACKET: u16 = 0;
    pub(crate) const MSG_CONFIG: u16 = 1;
    pub(crate) const PACKET_HDR: u16 = 1;
    pub(crate) const IFINDEX_INDEV: u16 = 4;
    pub(crate) const IFINDEX_PHYSINDEV: u16 = 6;
    pub(crate) const PAYLOAD: u16 = 9;
    pub(crate) const PREFIX: u16 = 10;
    pub(crate) const SEQ: u16 = 12;
    pub(crate) const CFG_CMD: u16 = 1;
    pub(crate) const CFG_MODE: u16 = 2;
    pub(crate) const CFG_NLBUFSIZ: u16 = 3;
    pub(crate) const CFG_TIMEOUT: u16 = 4;
    pub(crate) const CFG_QTHRESH: u16 = 5;
    pub(crate) const CFG_FLAGS: u16 = 6;
    pub(crate) const CMD_BIND: u8 = 1;
    pub(crate) const COPY_PACKET: u8 = 2;
    /// `NFULNL_CFG_F_SEQ`: packets are numbered.
    pub(crate) const F_SEQ: u16 = 1;
}
