//! Ports of this machine that stay their owner's while nobody listens there.

use std::{
    fs::{self, File},
    hash::{BuildHasher as _, RandomState},
    io::ErrorKind,
    net::TcpStream,
    ops::Range,
    sync::{Mutex, PoisonError},
};

/// Below those that outgoing connections and listeners on any port get.
const PORTS: Range<u16> = 10_000..32_000;

/// A port on 127.0.0.1 for a server that is started now or later, and again after it was down. While
/// this lives no other test on this machine is given it, whichever process it runs in.
#[derive(Debug)]
pub struct Port {
    number: u16,
    /// Locked. `None` where the folder of the locks is somebody else's.
    _lock: Option<File>,
}

impl Port {
    /// One that nobody listens on.
    pub fn reserve() -> Self {
        let folder = std::env::temp_dir().join("farebox-test-ports");
        // Where it cannot be made, the locks cannot either.
        let _ = fs::create_dir_all(&folder);
        let count = PORTS.end - PORTS.start;
        let first = RandomState::new().hash_one(()) % u64::from(count);
        let first = u16::try_from(first).unwrap();
        for n in 0..count {
            let number = PORTS.start + (first + n) % count;
            let lock = match File::create(folder.join(number.to_string())) {
                Ok(lock) if lock.try_lock().is_err() => continue,
                lock => lock.ok(),
            };
            // Asked and not bound: what is bound here would be seen as a server by who looks now.
            let answer = TcpStream::connect(("127.0.0.1", number));
            if answer.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused) {
                return Self {
                    number,
                    _lock: lock,
                };
            }
        }
        panic!("no port is free");
    }

    /// Which it is.
    pub fn number(&self) -> u16 {
        self.number
    }
}

/// The number of one that is kept for as long as this process runs.
pub fn free_port() -> u16 {
    static KEPT: Mutex<Vec<Port>> = Mutex::new(Vec::new());
    let port = Port::reserve();
    let number = port.number();
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    kept.push(port);
    number
}
