//! Names that the agent does not know: Services, and nodes other than its own. They are read from the API server with
//! the rights of who asks, when a flow needs them first, and once.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use crate::lookup::{Lookup, Missing};

/// Who has which address, by the API.
pub struct Names {
    lookup: Lookup,
    /// `namespace/name`; `None` before it is needed.
    services: Option<BTreeMap<IpAddr, String>>,
    nodes: Option<BTreeMap<IpAddr, String>>,
    /// Why there are no names, to be told.
    notes: Vec<String>,
}

impl Names {
    /// By a kubeconfig, or else by the default one, or else by the service account of the pod.
    ///
    /// # Errors
    ///
    /// If no threads can be started.
    pub fn new(kubeconfig: Option<PathBuf>) -> anyhow::Result<Names> {
        Ok(Names { lookup: Lookup::new(kubeconfig)?, services: None, nodes: None, notes: Vec::new() })
    }

    /// These names, whatever the API has.
    #[cfg(test)]
    pub(super) fn fixed(services: &[(&str, &str)], nodes: &[(&str, &str)]) -> Names {
        let by_address = |names: &[(&str, &str)]| {
            names.iter().map(|(address, name)| (address.parse().unwrap(), (*name).to_owned())).collect()
        };
        let lookup = Lookup::new(None).unwrap();
        Names { lookup, services: Some(by_address(services)), nodes: Some(by_address(nodes)), notes: Vec::new() }
    }

    /// For other questions to the API.
    pub(super) fn lookup(&mut self) -> &mut Lookup {
        &mut self.lookup
    }

    /// The Service that has an address: `namespace/name`.
    pub(super) fn service(&mut self, address: IpAddr) -> Option<String> {
        let services = self.services.get_or_insert_with(|| match self.lookup.services(None) {
            Ok(services) => {
                let named = |service: &compiler::api::Service| format!("{}/{}", service.namespace, service.name);
                services.iter().flat_map(|service| service.addresses().map(|own| (own, named(service)))).collect()
            }
            Err(missing) => {
                self.notes.push(note("Services", &missing));
                BTreeMap::new()
            }
        });
        services.get(&address).cloned()
    }

    /// The node that has an address.
    pub(super) fn node(&mut self, address: IpAddr) -> Option<String> {
        let nodes = self.nodes.get_or_insert_with(|| match self.lookup.nodes() {
            Ok(nodes) => {
                nodes.iter().flat_map(|node| node.addresses.iter().map(|own| (*own, node.name.to_string()))).collect()
            }
            Err(missing) => {
                self.notes.push(note("other nodes", &missing));
                BTreeMap::new()
            }
        });
        nodes.get(&address).cloned()
    }

    /// What has not been told yet.
    pub(super) fn notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }
}

fn note(what: &str, missing: &Missing) -> String {
    format!("{what} are shown by their addresses: {missing}")
}
