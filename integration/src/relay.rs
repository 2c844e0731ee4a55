//! The network between the agent and an API server, as a relay of bytes that can go silent, slow down and break.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// How often a slow relay hands something on.
const TICK: Duration = Duration::from_millis(20);

/// What becomes of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// They pass.
    Open,
    /// They wait, and so does whoever connects: nobody hears an end.
    Silent,
    /// Connections are broken, those that there are and each new one.
    Broken,
    /// So many bytes a second pass in each direction of each connection.
    Slow(usize),
}

/// A relay to one address. Dropping it ends it, with its connections.
pub struct Relay {
    address: SocketAddr,
    way: watch::Sender<Way>,
    received: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

// === impl Relay ===

impl Relay {
    /// Relays to an address, from a free port of loopback.
    ///
    /// # Errors
    ///
    /// If no port can be had.
    pub async fn start(to: SocketAddr) -> Result<Relay> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (way, ways) = watch::channel(Way::Open);
        let received = Arc::new(AtomicU64::new(0));
        let count = received.clone();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    Ok((client, _)) = listener.accept() => {
                        connections.spawn(connection(client, to, ways.clone(), count.clone()));
                    }
                    Some(_) = connections.join_next() => {}
                }
            }
        });
        Ok(Relay { address, way, received, task })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many bytes have come from the server.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Changes what becomes of the bytes, from the next one on.
    pub fn set(&self, way: Way) {
        self.way.send_replace(way);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Relays one connection until an end closes it or the way is broken.
async fn connection(client: TcpStream, to: SocketAddr, mut ways: watch::Receiver<Way>, received: Arc<AtomicU64>) {
    let (up_ways, down_ways) = (ways.clone(), ways.clone());
    let relayed = async {
        let server = TcpStream::connect(to).await?;
        let ((client_out, client_in), (server_out, server_in)) = (client.into_split(), server.into_split());
        let sent = AtomicU64::new(0);
        tokio::try_join!(pump(client_out, server_in, up_ways, &sent), pump(server_out, client_in, down_ways, &received))
    };
    // Whatever ends it, both ends see it when the sockets are dropped.
    tokio::select! {
        _ = relayed => {}
        _ = ways.wait_for(|way| *way == Way::Broken) => {}
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut ways: watch::Receiver<Way>,
    count: &AtomicU64,
) -> std::io::Result<()> {
    let mut buffer = [0; 16 * 1024];
    loop {
        let slow = |rate: usize| (rate / 50).clamp(1, 16 * 1024);
        let most = match *ways.borrow() {
            Way::Slow(rate) => slow(rate),
            Way::Open | Way::Silent | Way::Broken => buffer.len(),
        };
        let length = from.read(&mut buffer[..most]).await?;
        if length == 0 {
            return to.shutdown().await;
        }
        count.fetch_add(length as u64, Ordering::Relaxed);
        let way = *ways.wait_for(|way| *way != Way::Silent).await.map_err(std::io::Error::other)?;
        if let Way::Slow(_) = way {
            tokio::time::sleep(TICK).await;
        }
        to.write_all(&buffer[..length]).await?;
    }
}
