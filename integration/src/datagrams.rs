//! The datagrams by which the benchmarks time what a packet costs.

use std::net::UdpSocket;
use std::time::Duration;

/// Sees that datagrams arrive at whom the sender is connected to, so that nothing is timed that was refused. Where they
/// are to belong to an established flow, one is answered.
///
/// # Panics
///
/// If one does not arrive within ten seconds.
pub fn check(sender: &UdpSocket, receiver: &UdpSocket, is_answered: bool) {
    for socket in [sender, receiver] {
        socket.set_read_timeout(Some(Duration::from_secs(10))).expect("ten seconds are a time");
    }
    sender.send(b"?").expect("the sender is connected");
    let (_, from) = receiver.recv_from(&mut [0; 16]).expect("the policy lets it pass");
    if is_answered {
        receiver.send_to(b"!", from).expect("there is a way back");
        sender.recv(&mut [0; 16]).expect("answers always pass");
    }
}
