//! Settings of the kernel's network for the time of a run: the same congestion control on every machine, and ports enough
//! for many short connections. They are put back when this is dropped.

use std::fs;

/// What is set, and why.
const WANTED: [(&str, &str); 2] = [
    // bbr paces every flow by timers, which costs the balancer CPU that has nothing to do with it.
    ("/proc/sys/net/ipv4/tcp_congestion_control", "cubic"),
    // The balancers listen below this range.
    ("/proc/sys/net/ipv4/ip_local_port_range", "10240 65535"),
];

/// The settings as they were.
pub struct NetworkSettings(Vec<(&'static str, String)>);

impl NetworkSettings {
    /// Sets what may be set, and says what may not.
    pub fn widen() -> Self {
        let mut before = Vec::new();
        for (path, wanted) in WANTED {
            let present = fs::read_to_string(path)
                .unwrap_or_default()
                .trim()
                .to_owned();
            if present.split_whitespace().eq(wanted.split_whitespace()) {
                continue;
            }
            match fs::write(path, wanted) {
                Ok(()) => before.push((path, present)),
                Err(error) => {
                    eprintln!("compare: {path} stays {present:?}, wanted {wanted:?}: {error}")
                }
            }
        }
        Self(before)
    }
}

impl Drop for NetworkSettings {
    fn drop(&mut self) {
        for (path, value) in &self.0 {
            if let Err(error) = fs::write(path, value) {
                eprintln!("compare: {path} was {value:?} and could not be put back: {error}");
            }
        }
    }
}
