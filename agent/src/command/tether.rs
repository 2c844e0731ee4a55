//! The end of what goes on for ever, where it was started by somebody far away: a container runtime ends no program whose
//! caller has gone, but closes its standard input.

use std::io::{self, Read as _};
use std::process;
use std::thread;

/// Ends the process when standard input closes.
pub(super) fn tether() -> io::Result<()> {
    let wait = || {
        let mut stdin = io::stdin().lock();
        let mut ignored = [0; 256];
        // What cannot be read has ended too.
        while stdin.read(&mut ignored).is_ok_and(|length| length > 0) {}
        process::exit(0);
    };
    thread::Builder::new().name("tether".to_owned()).spawn(wait).map(drop)
}
