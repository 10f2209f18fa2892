//! Hangs in a wait for a child, until its own watchdog ends both.

use std::process::Command;
use std::time::Duration;

use support::Watchdog;

fn main() {
    let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
    println!("child {}", child.id());
    let _watchdog = Watchdog::start(Duration::from_millis(50));
    child.wait().unwrap();
}
