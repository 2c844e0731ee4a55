//! What a service mesh hides from policies: the port that its pods mean, behind that of its tunnel.

use std::net::IpAddr;

use compiler::api::{Pod, Protocol};
use compiler::policy::{Packet, PacketProtocol};

use super::Model;

/// Where the nodes' proxies of a mesh take what pods send each other: HBONE, of Istio's ambient mode.
const TUNNEL: (Protocol, u16) = (Protocol::Tcp, 15008);
/// The label of a pod, or else of its namespace, that has it in such a mesh.
const MODE: &str = "istio.io/dataplane-mode";
const AMBIENT: &str = "ambient";

impl Model {
    /// What is to be said of a mesh between the ends of a packet, if there is one, or the packet is one of its tunnel.
    pub fn mesh_hint(&self, packet: &Packet) -> Option<String> {
        let PacketProtocol::Port(protocol, port) = packet.protocol else { return None };
        let (_, tunnel) = TUNNEL;
        if (protocol, port) == TUNNEL {
            return Some(format!(
                "{tunnel}/{protocol} is the port of a mesh's tunnel: which port is meant behind it no NetworkPolicy sees, \
                 and only the mesh can decide"
            ));
        }
        let both = [packet.source, packet.destination].map(|address| self.in_mesh(address));
        let [Some(_), Some(server)] = both else { return None };
        (protocol == Protocol::Tcp).then(|| {
            format!(
                "both are in a mesh ({MODE}={AMBIENT}), whose tunnel takes them to port {tunnel} of {}: policies see that \
                 port and not {port}; ask about {tunnel}/{protocol}",
                server.key
            )
        })
    }

    fn in_mesh(&self, address: IpAddr) -> Option<&Pod> {
        let stranger = || self.strangers.iter().find(|pod| pod.ips.contains(&address));
        let pod = self.pods.owner(address).or_else(stranger)?;
        let own = pod.labels.get(MODE);
        let mode = own.or_else(|| self.namespaces.labels(&pod.key.namespace)?.get(MODE));
        mode.is_some_and(|mode| &**mode == AMBIENT).then_some(&**pod)
    }
}
