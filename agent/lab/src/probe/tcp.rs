//! TCP: a connection, and some bytes there and back.

use std::{io, net::SocketAddr, time::Duration};

use socket2::Type;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time,
};

use super::{Outcome, Probe, nonce};

/// The parts of the window, in hundredths, that the attempts have. The kernel sends a SYN again only after a second, so a lost one
/// is made good by a new connection.
const ATTEMPTS: [u32; 3] = [10, 25, 65];

/// Asks once, with several attempts within the window.
pub(super) async fn ask(probe: &Probe, window: Duration) -> Outcome {
    for part in ATTEMPTS {
        match time::timeout(window * part / 100, converse(probe)).await {
            Ok(Ok(())) => return Outcome::Allowed,
            Ok(Err(error)) => return Outcome::of_error(&error),
            Err(_) => {}
        }
    }
    Outcome::Refused
}

/// Opens a connection from the probe's end.
pub(crate) async fn connect(probe: &Probe) -> io::Result<TcpStream> {
    let socket = TcpSocket::from_std_stream(probe.socket(Type::STREAM, None)?.into());
    // The connection ends by a reset, so that thousands of probes leave no ports and no conntrack entries waiting.
    socket.set_zero_linger()?;
    socket.connect(SocketAddr::new(probe.to, probe.port)).await
}

async fn converse(probe: &Probe) -> io::Result<()> {
    let mut stream = connect(probe).await?;
    let request = nonce().to_be_bytes();
    stream.write_all(&request).await?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await?;
    if answer == request { Ok(()) } else { Err(io::Error::other("somebody else answered")) }
}
