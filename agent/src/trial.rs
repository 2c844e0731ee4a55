//! A cluster of manifests, run for real: network namespaces, an agent on every node, packets.

pub mod matrix;
mod services;

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use compiler::api::{NodeName, Protocol};
use compiler::cluster::{Budget, Event};
use compiler::nft::Deny;
use compiler::policy::{OwnAddresses, Packet, PacketProtocol};
use netlink::{Connection, Error, Ownership};

use crate::kernel;
use crate::links::Routes;
use crate::metrics::Metrics;
use crate::model::{End, Endpoint, Flow, Model};
use crate::readiness::Readiness;
use crate::sync::{self, Handle, Origin, Settings};
use lab::{Attachment, Lab, Netns, Outcome, ProbeOptions, Responder, Topology};

/// How long an agent may take to enforce the manifests. It takes milliseconds; this ends a wait for what never comes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running cluster. It ends when it is dropped, or with the process.
pub struct Trial {
    lab: Lab,
    agents: Vec<Handle>,
    /// The nodes, in the lab's order.
    nodes: Vec<NodeName>,
    /// Where Services lead.
    endpoints: Vec<Endpoint>,
}

impl Trial {
    /// Builds the cluster of a model and waits until every node's agent enforces it. The host outside has the addresses
    /// of `outside`.
    ///
    /// # Errors
    ///
    /// If the kernel refuses namespaces, links, addresses or rules, or two ends want one address.
    pub async fn start(
        model: &Model,
        outside: BTreeSet<IpAddr>,
        attachment: Attachment,
        deny: Deny,
    ) -> anyhow::Result<Trial> {
        let lab = Lab::build(topology(model, outside, attachment)).await.context("cannot build the cluster")?;
        let nodes = model.nodes().keys().cloned().collect();
        let mut trial = Trial { lab, agents: Vec::new(), nodes, endpoints: model.endpoints() };
        trial.translate(0)?;
        for (index, name) in model.nodes().keys().enumerate() {
            let netns = trial.lab.node(index).expect("the lab has the nodes of the model").clone();
            let settings = Settings {
                node: name.clone(),
                deny,
                // Nobody would listen.
                log: None,
                origin: Origin::Files,
                limits: kernel::limits(),
                budget: Budget::default(),
                own_addresses: OwnAddresses::All { except: BTreeSet::new() },
                verify_interval: PATIENCE,
            };
            let agent = start_agent(settings, netns, model).await;
            trial.agents.push(agent.with_context(|| format!("the agent of node {name} does not enforce"))?);
        }
        Ok(trial)
    }

    /// The namespaces, for whoever wants to do more than probe.
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// Sends the packets of flows and says what became of each, in their order. A flow to a Service goes to the endpoint
    /// that its packet names.
    pub async fn probe(&self, flows: &[(Flow, Packet)], window: Duration) -> Vec<Outcome> {
        let rounds: Vec<usize> =
            flows.iter().map(|(flow, packet)| self.index(flow, packet) / services::AT_A_TIME).collect();
        let mut outcomes = vec![Outcome::Refused; flows.len()];
        for round in rounds.iter().copied().collect::<BTreeSet<_>>() {
            let numbers: Vec<usize> = (0..flows.len()).filter(|number| rounds[*number] == round).collect();
            let flows: Vec<_> = numbers.iter().map(|number| flows[*number]).collect();
            let of_round = match self.translate(round) {
                Ok(()) => self.probe_round(&flows, window).await,
                Err(error) => vec![Outcome::Error(format!("{error:#}")); flows.len()],
            };
            for (number, outcome) in numbers.into_iter().zip(of_round) {
                outcomes[number] = outcome;
            }
        }
        outcomes
    }

    async fn probe_round(&self, flows: &[(Flow, Packet)], window: Duration) -> Vec<Outcome> {
        let probes: Vec<Result<lab::Probe, String>> =
            flows.iter().map(|(flow, packet)| self.lab_probe(flow, packet)).collect();
        let possible: Vec<lab::Probe> = probes.iter().filter_map(|probe| probe.as_ref().ok()).cloned().collect();
        let options = ProbeOptions { window, ..ProbeOptions::default() };
        let mut outcomes = lab::probe(&possible, &options).await.into_iter();
        let outcome = |probe: Result<_, String>| match probe {
            Ok(_) => outcomes.next().expect("every probe has an outcome"),
            Err(reason) => Outcome::Error(reason),
        };
        probes.into_iter().map(outcome).collect()
    }

    /// Has every node translate the endpoints of a round.
    fn translate(&self, round: usize) -> anyhow::Result<()> {
        for (index, name) in self.nodes.iter().enumerate() {
            let netns = self.lab.node(index).expect("the lab has the nodes of the model");
            services::translate(netns, name, &self.endpoints, round)
                .with_context(|| format!("cannot set up Services on node {name}"))?;
        }
        Ok(())
    }

    /// The place of the endpoint to which a flow leads among those of its Service; 0 for other flows.
    fn index(&self, flow: &Flow, packet: &Packet) -> usize {
        let (PacketProtocol::Port(protocol, port), PacketProtocol::Port(_, target)) = (flow.protocol, packet.protocol)
        else {
            return 0;
        };
        let leads = |endpoint: &&Endpoint| {
            (endpoint.service, endpoint.protocol, endpoint.port) == (flow.destination, protocol, port)
                && (endpoint.address, endpoint.target) == (packet.destination, target)
        };
        self.endpoints.iter().find(leads).map_or(0, |endpoint| endpoint.index)
    }

    fn lab_probe(&self, flow: &Flow, packet: &Packet) -> Result<lab::Probe, String> {
        let end = |address| self.lab.endpoint(address).ok_or_else(|| format!("nobody has address {address}"));
        let (protocol, port, target) = match (flow.protocol, packet.protocol) {
            (PacketProtocol::Port(protocol, port), PacketProtocol::Port(_, target)) => {
                (lab_protocol(protocol), port, target)
            }
            (PacketProtocol::Echo, _) | (_, PacketProtocol::Echo) => (lab::Protocol::Icmp, 0, 0),
        };
        Ok(lab::Probe {
            from: end(flow.source)?,
            to: flow.destination,
            protocol,
            port,
            dscp: services::dscp(self.index(flow, packet)),
            responders: vec![Responder { at: end(packet.destination)?, port: target }],
        })
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        self.agents.iter().for_each(Handle::stop);
    }
}

fn lab_protocol(protocol: Protocol) -> lab::Protocol {
    match protocol {
        Protocol::Tcp => lab::Protocol::Tcp,
        Protocol::Udp => lab::Protocol::Udp,
        Protocol::Sctp => lab::Protocol::Sctp,
    }
}

/// Every node and every policed pod with the addresses that are its own.
fn topology(model: &Model, outside: BTreeSet<IpAddr>, attachment: Attachment) -> Topology {
    let nodes = model
        .nodes()
        .iter()
        .map(|(name, node)| lab::Node { name: name.to_string(), addresses: node.addresses.clone() });
    let pods = model.pods().filter(|pod| pod.is_policed()).filter_map(|pod| {
        let own = |address: &IpAddr| model.end(*address) == End::Pod(pod.key.clone());
        let addresses: Vec<IpAddr> = pod.ips.iter().copied().filter(own).collect();
        let node = model.nodes().keys().position(|name| Some(name) == pod.node.as_ref())?;
        (!addresses.is_empty()).then(|| lab::Pod { id: pod.key.to_string(), node, addresses })
    });
    Topology { attachment, nodes: nodes.collect(), pods: pods.collect(), outside: outside.into_iter().collect() }
}

/// Starts the agent of one node, as `postern agent -f` would run it there, and waits until it enforces.
async fn start_agent(settings: Settings, netns: Netns, model: &Model) -> anyhow::Result<Handle> {
    let readiness = Readiness::new();
    let metrics = Metrics::new();
    let runtime = tokio::runtime::Handle::current();
    let mut routes = netns.run(|| {
        let _inside = runtime.enter();
        Routes::open(&[])
    })??;
    let connect = move || netns.run(kernel::connect).unwrap_or_else(|source| Err(cannot_enter(source)));
    let (agent, mut end) = sync::spawn(settings, connect, None, &readiness, metrics.sync.clone())?;
    agent.event(Event::Links(routes.read().await?));
    for event in model.events() {
        agent.event(event);
    }
    tokio::select! {
        () = readiness.ready() => Ok(agent),
        ended = &mut end => Err(match ended {
            Ok(Err(error)) => error.into(),
            Ok(Ok(())) | Err(_) => anyhow!("it ended"),
        }),
        () = tokio::time::sleep(PATIENCE) => Err(anyhow!("{}", readiness.status())),
    }
}

fn cannot_enter(source: io::Error) -> Error {
    Error::Socket { what: "enter the node's network namespace", source }
}

/// A connection of our own in a node's namespace.
fn open(netns: &Netns) -> Result<Connection, Error> {
    netns.run(|| Connection::open(Ownership::Plain)).unwrap_or_else(|source| Err(cannot_enter(source)))
}
