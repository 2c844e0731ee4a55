//! Connections that are kept: to see what becomes of an established flow when the rules change.

use std::{io, time::Duration};

use socket2::Type;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::{self, Instant},
};

use super::probe::{Association, Outcome, Probe, Protocol, Responders, connect};

/// How often an unanswered datagram is sent again.
const PAUSE: Duration = Duration::from_millis(100);

/// A TCP connection, a UDP flow or an SCTP association with an end that echoes. Both ends live as long as this does.
pub struct Flow {
    wire: Wire,
    /// The bytes sent so far, also those whose echo has not come.
    sent: u64,
    _responders: Responders,
}

enum Wire {
    Tcp { stream: TcpStream, received: u64 },
    Udp(UdpSocket),
    Sctp(Association),
}

// === impl Flow ===

impl Flow {
    /// Opens the flow that the probe describes, and makes sure that it is answered. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// What became of the attempt, if it was not allowed. ICMP has no flows to keep.
    pub async fn open(probe: &Probe, window: Duration) -> Result<Self, Outcome> {
        let responders = Responders::open(std::slice::from_ref(probe));
        if let Some(reason) = responders.failure(probe) {
            return Err(Outcome::Error(reason));
        }
        let failed = |error: io::Error| Outcome::of_error(&error);
        let wire = match probe.protocol {
            Protocol::Tcp => {
                let connected = time::timeout(window, connect(probe)).await.map_err(|_| Outcome::Refused)?;
                Wire::Tcp { stream: connected.map_err(failed)?, received: 0 }
            }
            Protocol::Udp => {
                let socket = probe.socket(Type::DGRAM, None).map_err(failed)?;
                let socket = UdpSocket::from_std(socket.into()).map_err(failed)?;
                socket.connect((probe.to, probe.port)).await.map_err(failed)?;
                Wire::Udp(socket)
            }
            Protocol::Sctp => Wire::Sctp(Association::open(probe, window).await?),
            Protocol::Icmp => return Err(Outcome::Error("ICMP has no flow to keep open".into())),
        };
        let mut flow = Self { wire, sent: 0, _responders: responders };
        match flow.exchange(8, window).await {
            Outcome::Allowed => Ok(flow),
            refusal @ (Outcome::Refused | Outcome::Rejected | Outcome::Error(_)) => Err(refusal),
        }
    }

    /// Sends `size` bytes, at least eight, and waits for their echo: by UDP in one datagram, in fragments if it is large, and by SCTP in one
    /// heartbeat, which has room for 400.
    ///
    /// By TCP the echo of all that was sent before has to come first. Mind that the kernel sends a lost segment again after a time that doubles
    /// with every attempt, so a connection that was blocked for long takes as long to go on.
    pub async fn exchange(&mut self, size: usize, window: Duration) -> Outcome {
        self.exchange_with(size, window, PAUSE).await
    }

    /// The same, where nothing is sent again but by TCP: what is lost stays lost.
    pub async fn exchange_once(&mut self, size: usize, window: Duration) -> Outcome {
        self.exchange_with(size, window, window).await
    }

    async fn exchange_with(&mut self, size: usize, window: Duration, pause: Duration) -> Outcome {
        let message = self.message(size);
        let end = Instant::now() + window;
        let result = match &mut self.wire {
            Wire::Tcp { stream, received } => {
                time::timeout_at(end, exchange_bytes(stream, &message, received, self.sent)).await
            }
            Wire::Udp(socket) => time::timeout_at(end, exchange_datagram(socket, &message, pause)).await,
            Wire::Sctp(association) => return association.exchange(&message, window, pause).await,
        };
        match result {
            Ok(Ok(())) => Outcome::Allowed,
            Ok(Err(error)) => Outcome::of_error(&error),
            Err(_) => Outcome::Refused,
        }
    }

    /// A message that differs from all others of the flow.
    fn message(&mut self, size: usize) -> Vec<u8> {
        let mut message = self.sent.to_be_bytes().to_vec();
        message.resize(size.max(message.len()), 0x5a);
        self.sent += u64::try_from(message.len()).expect("a length fits 64 bits");
        message
    }
}

async fn exchange_bytes(stream: &mut TcpStream, message: &[u8], received: &mut u64, sent: u64) -> io::Result<()> {
    let mut buffer = vec![0; 65_536];
    let (mut reader, mut writer) = stream.split();
    let mut rest = message;
    while *received < sent {
        tokio::select! {
            written = writer.write(rest), if !rest.is_empty() => rest = &rest[written?..],
            read = reader.read(&mut buffer) => match read? {
                0 => return Err(io::ErrorKind::ConnectionReset.into()),
                length => *received += u64::try_from(length).expect("a length fits 64 bits"),
            },
        }
    }
    Ok(())
}

async fn exchange_datagram(socket: &UdpSocket, message: &[u8], pause: Duration) -> io::Result<()> {
    let mut buffer = vec![0; 65_536];
    loop {
        socket.send(message).await?;
        let again = Instant::now() + pause;
        while let Ok(length) = time::timeout_at(again, socket.recv(&mut buffer)).await {
            if buffer[..length?] == *message {
                return Ok(());
            }
        }
    }
}
