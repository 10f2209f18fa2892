//! Starting a process that does nothing, and waiting for its end.

use std::ffi::CString;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, posix_spawn};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use crate::figure::Printer;
use crate::settings::Settings;
use crate::sys::process::{Forked, fork, fork_sibling};
use crate::timing::samples;

/// The argument with which this program ends at once.
pub(crate) const NOTHING: &str = "nothing";

pub(crate) fn run(print: Printer<'_>, settings: Settings) {
    // While this process is small.
    let mut zygote = Zygote::start();
    let mut ballast = Vec::new();
    let large = settings.pick(1024, 1024, 64);
    for (mib, n) in [(0, settings.pick(500, 100, 5)), (large, settings.pick(100, 30, 3))] {
        ballast.resize(mib << 20, 1u8);
        let parent = if mib == 0 { "small parent".into() } else { format!("parent+{mib}MiB") };
        let measure = |name: &str, f: &mut dyn FnMut()| {
            f();
            let us = samples(n, Duration::from_secs(5), || {}, |_| f());
            print.emit_latency(&format!("{name}, {parent}"), us);
        };
        measure("fork + wait", &mut || fork(|| {}).wait());
        measure("posix_spawn of self", &mut spawn_self);
        measure("zygote fork", &mut || zygote.start_and_join());
    }
    zygote.end();
}

fn spawn_self() {
    let actions = PosixSpawnFileActions::init().expect("no actions");
    let attributes = PosixSpawnAttr::init().expect("no attributes");
    let arguments = [c"benches".to_owned(), CString::new(NOTHING).expect("no zero in it")];
    let environment: [CString; 0] = [];
    let child = posix_spawn(c"/proc/self/exe", &actions, &attributes, &arguments, &environment);
    waitpid(child.expect("ourselves"), None).expect("our own child");
}

/// A process that forks when it is asked to. What it forks is our own child.
struct Zygote {
    socket: UnixStream,
    process: Forked,
}

impl Zygote {
    fn start() -> Self {
        let (socket, theirs) = UnixStream::pair().expect("a socket pair");
        let process = fork(move || serve(theirs));
        Self { socket, process }
    }

    fn start_and_join(&mut self) {
        self.socket.write_all(&[1]).expect("a zygote that listens");
        let mut pid = [0; 4];
        self.socket.read_exact(&mut pid).expect("a zygote that answers");
        waitpid(Pid::from_raw(i32::from_ne_bytes(pid)), None).expect("our own child");
    }

    fn end(self) {
        // Closing it would not end anything: the zygote itself has a copy of our end.
        self.socket.shutdown(std::net::Shutdown::Both).expect("an open socket");
        self.process.wait();
    }
}

fn serve(mut socket: UnixStream) {
    while let Ok(1) = socket.read(&mut [0]) {
        let pid = fork_sibling();
        socket.write_all(&pid.as_raw().to_ne_bytes()).expect("somebody who asked");
    }
}
