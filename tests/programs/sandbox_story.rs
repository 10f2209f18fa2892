//! A program whose processes are in a sandbox, and which is ended as its argument says.

use std::error::Error;
use std::io::{Write, stdin, stdout};
use std::path::PathBuf;
use std::time::Duration;

use epilogue::process::Builder;
use epilogue::{Process, Sandbox, Sender, StartMethod, channel, embed};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use support::{Marks, hooks, park_for_ever};

const METHODS: [StartMethod; 2] = [StartMethod::Spawn, StartMethod::Server];

fn main() -> Result<(), Box<dyn Error>> {
    match std::env::args().nth(1).ok_or("no story")?.as_str() {
        "busy" => wait(in_short, busy),
        "busy-tree" => wait(Builder::end_tree, busy),
        "stubborn" => wait(in_short, |(sender, _)| {
            embed::finalizer("stubborn", || {
                let _ = SigSet::all().thread_block();
                loop {
                    std::hint::spin_loop();
                }
            });
            told(sender)
        }),
        "measured" => measured(),
        other => Err(format!("no such story: {other}"))?,
    }
}

fn in_short(builder: Builder) -> Builder {
    builder.grace_period(Duration::from_millis(400))
}

fn busy((sender, marks): (Sender<()>, PathBuf)) {
    hooks::register(&marks);
    told(sender)
}

fn told(sender: Sender<()>) -> ! {
    let _ = sender.send(());
    park_for_ever()
}

fn in_a_sandbox(method: StartMethod, directory: PathBuf) -> Builder {
    let sandbox = Sandbox::new().allow_write(directory).compute_only().required();
    Process::builder().start_method(method).sandbox(sandbox)
}

/// A process by each method, which never ends by itself.
fn wait(
    set: fn(Builder) -> Builder,
    endless: fn((Sender<()>, PathBuf)),
) -> Result<(), Box<dyn Error>> {
    let marks = Marks::from_env().path();
    let mut all = Vec::new();
    for method in METHODS {
        let (sender, receiver) = channel()?;
        let builder = set(in_a_sandbox(method, marks.clone()));
        all.push(builder.start((sender, marks.clone()), endless)?);
        receiver.recv()?;
    }
    println!("ready");
    stdout().flush()?;
    stdin().read_line(&mut String::new())?;
    Ok(())
}

#[inline(never)]
fn measured_in_a_sandbox() {
    std::hint::black_box(());
}

#[inline(never)]
fn measured_finalizer_in_a_sandbox() {
    std::hint::black_box(());
}

fn measured() -> Result<(), Box<dyn Error>> {
    let directory = PathBuf::from(std::env::var_os("PROFILES").ok_or("no directory")?);
    let run = |sender: Option<Sender<()>>| {
        embed::finalizer("measured", measured_finalizer_in_a_sandbox as fn());
        measured_in_a_sandbox();
        if let Some(sender) = sender {
            told(sender);
        }
    };
    for method in METHODS {
        let start = |sender| in_a_sandbox(method, directory.clone()).start(sender, run);
        start(None)?.join()?;
        let (sender, receiver) = channel()?;
        let stopped = start(Some(sender))?;
        receiver.recv()?;
        stopped.terminate()?;
        let (sender, receiver) = channel()?;
        let signalled = start(Some(sender))?;
        receiver.recv()?;
        kill(Pid::from_raw(signalled.id().cast_signed()), Signal::SIGTERM)?;
        drop(signalled.join());
    }
    Ok(())
}
