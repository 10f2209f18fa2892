//! A program whose processes start in every way that is promised, and tell what they found.
//!
//! What it does is its first argument. There is nothing to call in `main`, except that a build
//! without the start hook calls `init` if it is told so.

mod sys;

use std::env;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use epilogue::{BuildError, JoinError, Pool, Process, Sandbox, StartError};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{Pid, Uid, getpid, gettid};

const CHILD_VARIABLE: &str = "EPILOGUE_CHILD_";
const SHORT: Duration = Duration::from_millis(300);

fn main() {
    if env::var_os("STARTUP_INIT").is_some() {
        epilogue::init();
    }
    let arguments: Vec<String> = env::args().collect();
    let what = arguments.get(2).map_or("", String::as_str);
    println!("main");
    match arguments.get(1).map(String::as_str) {
        Some("work") => work(),
        Some("later") => {
            // Everything is started only now: the test has deleted or replaced the file.
            io::stdin().read_line(&mut String::new()).unwrap();
            work();
        }
        Some("panic") => panic_in_a_task(),
        Some("nested") => println!("nested {}", nested()),
        Some("fail") => fail(what),
        Some("errors") => errors(),
        Some("descriptors") => descriptors(),
        Some("closed") => closed(what),
        Some("signals") => signals(),
        Some("names") => names(),
        Some("environment") => environment(),
        Some("thread") => short_lived_thread(what),
        Some("terminate") => terminate(what.parse().unwrap()),
        Some("confined") => confined(what),
        Some("interrupt") => interrupt(what.parse().unwrap()),
        other => panic!("no role {other:?}"),
    }
}

/// A pool, a process and a scope, from start to end.
fn work() {
    let pool = Pool::new(2).unwrap();
    let squares: Vec<u64> = pool.map(0..100u64, |x| x * x).unwrap();
    assert!(squares.into_iter().eq((0..100).map(|x| x * x)));
    let (pid, file) = pool.submit((), |()| (std::process::id(), inode())).unwrap().join().unwrap();
    assert_ne!(pid, std::process::id());
    assert_eq!(file, inode());
    assert!(pool.close().unwrap().is_clean());
    let hello = Process::start(String::from("bob"), |name| format!("hello {name}")).unwrap();
    println!("{}", hello.join().unwrap());
    let sum = epilogue::scope(|scope| {
        let one = scope.start(1u64, |x| x + 1).unwrap();
        let two = scope.start(2u64, |x| x + 1).unwrap();
        one.join().unwrap() + two.join().unwrap()
    });
    println!("sum {sum}");
}

/// Which file this process runs.
fn inode() -> u64 {
    fs::metadata("/proc/self/exe").unwrap().ino()
}

fn panic_in_a_task() {
    let pool = Pool::new(1).unwrap();
    let outcomes = pool.map_outcomes(0..4u32, |x| if x == 2 { panic!("two") } else { x }).unwrap();
    for outcome in outcomes {
        match outcome {
            Ok(value) => println!("value {value}"),
            Err(error) => println!("error {error}"),
        }
    }
    println!("afterwards {:?}", pool.map([1u32], |x| x + 1).unwrap());
    println!("{}", pool.close().unwrap());
}

fn nested() -> u64 {
    let outer = Pool::new(2).unwrap();
    let sums: Vec<u64> = outer
        .map([10u64, 20], |n| {
            let inner = Pool::new(2).unwrap();
            let doubled =
                inner.map(0..n, |x| Process::start(x, |x| 2 * x).unwrap().join().unwrap());
            doubled.unwrap().into_iter().sum()
        })
        .unwrap();
    sums.into_iter().sum()
}

/// A process, then a pool, whose constructor does `what` before the start hook.
fn fail(what: &str) {
    let process = Process::builder().name(what).start_deadline(SHORT);
    match process.start((), |()| ()) {
        Err(error) => println!("process {error:?}"),
        Ok(_) => println!("process started"),
    }
    match Pool::builder().workers(2).name(what).start_deadline(SHORT).start() {
        Err(BuildError::Worker(error)) => println!("pool {error:?}"),
        other => println!("pool {other:?}"),
    }
}

fn errors() {
    println!("effective {}", Uid::effective());
    match Process::start((), |()| ()) {
        Err(error) => println!("process {error:?}: {error}"),
        Ok(_) => println!("process started"),
    }
    match Pool::new(2) {
        Err(error) => println!("pool {error:?}: {error}"),
        Ok(_) => println!("pool started"),
    }
    let scoped: Result<(), StartError> =
        epilogue::scope(|scope| scope.start((), |()| ()).map(drop));
    if let Err(error) = scoped {
        println!("scope {error}");
    }
}

/// The descriptors of this process and what they lead to.
fn open_descriptors() -> Vec<(i32, String)> {
    let own = format!("/proc/{}/fd", std::process::id());
    let names = fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap().path());
    let links = names.map(|path| {
        let link = fs::read_link(&path).map(|link| link.to_string_lossy().into_owned());
        (path.file_name().unwrap().to_str().unwrap().parse().unwrap(), link.unwrap_or_default())
    });
    // The listing sees the descriptor that it is read through.
    let mut all: Vec<_> = links.filter(|(_, link)| !link.is_empty() && *link != own).collect();
    all.sort();
    all
}

fn descriptors() {
    // More than what the first of them are replaced by in a worker.
    let leaked = [(); 16].map(|()| sys::leak("/etc/passwd"));
    println!("leaked {leaked:?}");
    // A second worker must not get what the first one has.
    let pool = Pool::new(2).unwrap();
    let process = Process::start((), |()| open_descriptors()).unwrap();
    for (fd, link) in process.join().unwrap() {
        println!("process {fd} {link}");
    }
    for (fd, link) in pool.submit((), |()| open_descriptors()).unwrap().join().unwrap() {
        println!("pool {fd} {link}");
    }
}

fn closed(report: &str) {
    sys::close_standard_descriptors();
    let process = Process::start((), |()| {
        // Whoever writes to what the parent had closed must not write into a file of another.
        let opened = File::open("/etc/passwd").unwrap();
        print!("nobody reads this");
        let found = open_descriptors();
        drop(opened);
        found
    });
    let found = process.unwrap().join().unwrap();
    let mut file = File::create(report).unwrap();
    for (fd, link) in found {
        writeln!(file, "{fd} {link}").unwrap();
    }
}

fn signals() {
    SigSet::all().thread_block().unwrap();
    sys::ignore(Signal::SIGTERM);
    sys::ignore(Signal::SIGUSR1);
    let process = Process::start((), |()| {
        let own = fs::read_to_string("/proc/self/status").unwrap();
        // What a program that the worker starts finds.
        let grandchild = Command::new("cat").arg("/proc/self/status").output().unwrap();
        (own, String::from_utf8(grandchild.stdout).unwrap())
    });
    let (own, grandchild) = process.unwrap().join().unwrap();
    for (who, status) in [("worker", own), ("grandchild", grandchild)] {
        for line in status.lines().filter(|line| line.starts_with("Sig")) {
            println!("{who} {}", line.replace('\t', " "));
        }
    }
}

fn names() {
    let pool = Pool::builder().workers(1).name("hash").start().unwrap();
    let read = |()| {
        let line = fs::read("/proc/self/cmdline").unwrap();
        let name = fs::read_to_string("/proc/self/comm").unwrap();
        (String::from_utf8(line).unwrap(), name)
    };
    let process = Process::builder().name("a name of more than fifteen bytes").start((), read);
    for (line, name) in
        [pool.submit((), read).unwrap().join().unwrap(), process.unwrap().join().unwrap()]
    {
        println!("argument {}", line.trim_end_matches('\0'));
        println!("thread {}", name.trim_end());
    }
}

/// Variables that make a process a child, here and in what it starts.
fn environment() {
    sys::set_variable("STARTUP_BYTES", b"\xff\xfe");
    sys::set_variable("EPILOGUE_CHILD_99_99", b"another version's business");
    let process = Process::start((), |()| {
        let own: Vec<_> = env::vars_os().map(|(name, _)| name).collect();
        let own: Vec<_> = own.iter().map(|name| name.to_string_lossy().into_owned()).collect();
        assert_eq!(env::var_os("STARTUP_BYTES").unwrap().as_encoded_bytes(), b"\xff\xfe");
        let grandchild = Command::new("env").output().unwrap().stdout;
        let grandchild = String::from_utf8_lossy(&grandchild).into_owned();
        let environ = fs::read("/proc/self/environ").unwrap();
        (own, grandchild, String::from_utf8_lossy(&environ).contains(CHILD_VARIABLE))
    });
    let (own, grandchild, was_there) = process.unwrap().join().unwrap();
    println!("was there {was_there}");
    for name in own.iter().filter(|name| name.starts_with(CHILD_VARIABLE)) {
        println!("worker {name}");
    }
    for line in grandchild.lines().filter(|line| line.starts_with(CHILD_VARIABLE)) {
        println!("grandchild {line}");
    }
}

/// Starts a process from a thread that ends while the process still waits on the pipe `path`.
fn short_lived_thread(path: &str) {
    let path = path.to_owned();
    let started = thread::spawn({
        let path = path.clone();
        move || {
            let process = Process::start(path, |path| fs::read_to_string(path).unwrap()).unwrap();
            (process, gettid())
        }
    });
    let (process, thread) = started.join().unwrap();
    // What the end of the thread sends has been sent when it is not listed any more.
    while fs::exists(format!("/proc/self/task/{thread}")).unwrap() {
        thread::yield_now();
    }
    fs::write(path, "still here").unwrap();
    println!("worker {}", process.join().unwrap());
}

/// A process in a sandbox, by wish and by demand, whose constructor does `what`. Where Landlock, from
/// the next version on, restricts all threads, the kernel has this one all the same.
fn confined(what: &str) {
    if let Err(error) = support::landlock_says(7) {
        return println!("not tried: nobody may answer for the kernel here: {error}");
    }
    let sandbox = Sandbox::new().confine();
    for sandbox in [sandbox.clone(), sandbox.required()] {
        let builder = Process::builder().name(what).sandbox(sandbox);
        match builder.start((), |()| fs::read("/etc/passwd").is_ok()) {
            Ok(process) => {
                let level = process.sandbox().unwrap().landlock.clone();
                println!("sandbox {level:?}, which may read: {}", process.join().unwrap());
            }
            Err(error) => println!("sandbox refused: {error}"),
        }
    }
}

/// Processes to which a SIGTERM comes after their start and before their hello.
fn terminate(rounds: u32) {
    // It came before the function did, which must not end before it is heard of.
    let stay = |()| loop {
        thread::park();
    };
    (0..rounds).for_each(|_| start_and_tell("term", stay));
}

fn start_and_tell(name: &str, f: fn(())) {
    match Process::builder().name(name).start((), f) {
        Err(StartError::EndedEarly { status }) => println!("end early {status}"),
        Err(error) => println!("end {error:?}"),
        Ok(process) => match process.join() {
            Ok(()) => println!("end done"),
            Err(JoinError::Signaled { signal: 15, .. }) => println!("end up killed by SIGTERM"),
            Err(error) => println!("end {error:?}"),
        },
    }
}

/// Processes to which a SIGTERM comes at whatever moment of their start.
fn interrupt(rounds: u32) {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                children().into_iter().for_each(request_stop);
            }
        });
        // Every other one waits for its signal: on one core no signal may come to any other in time.
        (0..rounds / 2).for_each(|_| {
            start_and_tell("mark", |()| ());
            start_and_tell("mark", |()| support::park_for_ever());
        });
        over.store(true, Ordering::Relaxed);
    });
}

fn children() -> Vec<Pid> {
    let list = fs::read_to_string(format!("/proc/self/task/{}/children", getpid())).unwrap();
    list.split_whitespace().map(|pid| Pid::from_raw(pid.parse().unwrap())).collect()
}

fn request_stop(child: Pid) {
    let Ok(pidfd) = support::sys::pidfd_open(child) else { return };
    // Listed again: the pid was not given to a stranger in between.
    if children().contains(&child) {
        let _ = support::sys::pidfd_signal(pidfd.as_fd(), Signal::SIGTERM);
    }
}
