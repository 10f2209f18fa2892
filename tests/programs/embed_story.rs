//! A program that ends in many ways: its arguments are the steps it takes.
//!
//! `embed_story handle:15 finalizer:a calls:10 say:ready wait` handles SIGTERM, registers a
//! finalizer that says `a`, calls the measured function ten times, says `ready` and waits for a
//! line of input. Steps of another process or thread are one argument, divided by commas.

use std::ffi::CString;
use std::hint::black_box;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use epilogue::embed::{self, ending};
use nix::errno::Errno;
use nix::poll::ppoll;
use nix::sched::CloneFlags;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use support::{procfs, raw, sys};

fn main() {
    // Before any step: whoever started the tests may have us ignore these.
    let usual = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM];
    usual.into_iter().for_each(sys::reset);
    let steps: Vec<String> = std::env::args().skip(1).collect();
    take_all(&steps);
}

/// What the tests count.
#[inline(never)]
fn measured_call() {
    black_box(());
}

/// What the tests count of finalizers.
#[inline(never)]
fn measured_finalizer(name: &str) {
    say(name);
}

fn take_all(steps: &[String]) {
    for step in steps {
        let (verb, what) = step.split_once(':').unwrap_or((step, ""));
        take(verb, what);
    }
}

fn take(verb: &str, what: &str) {
    match verb {
        "calls" => (0..number(what)).for_each(|_| measured_call()),
        "say" => say(what),
        "print" => print!("{what}"),
        "c-print" => raw::print_in_c(&CString::new(what).unwrap()),
        "plugin" => assert!(raw::run_plugin(&CString::new(what).unwrap())),
        "allocate" => allocate(number(what)),
        "status" => status(),
        "mask-of-child" => mask_of_child("main"),
        "wait" => drop(std::io::stdin().read_line(&mut String::new()).unwrap()),
        "waits-at-exit" => sys::at_exit(wait_at_exit),
        "registers-at-exit" => sys::at_exit(register_at_exit),
        "aborts-at-exit" => sys::at_exit(abort_at_exit),
        "calls-at-exit" => sys::at_exit(call_at_exit),
        "is-hit-and-leaves-at-exit" => sys::at_exit(leave_at_exit),
        "park" => loop {
            thread::park();
        },
        "chatter" => loop {
            raw::say(format_args!("chatter\n"));
        },
        "raise-on-stop" => {
            let signals = inner(what);
            embed::on_stop(move |_| signals.iter().for_each(|number| take("raise", number)));
        }
        "fork-on-stop" => {
            let steps = inner(what);
            embed::on_stop(move |_| fork_and_return(&steps));
        }
        "on-stop" => embed::on_stop(|reason| say(&format!("{reason:?}"))),
        "exit-on-stop" => embed::on_stop(|_| embed::exit(9)),
        "exit-now-on-stop" => embed::on_stop(|_| embed::exit_now(9)),
        "exec-on-stop" => {
            let steps = if what.is_empty() { "say:new" } else { what }.to_owned();
            embed::on_stop(move |_| drop(embed::exec(&mut this_program(&steps))));
        }
        "std-exit-on-stop" => embed::on_stop(|_| std::process::exit(7)),
        "parks-on-stop" => embed::on_stop(|_| {
            say("asked");
            take("park", "");
        }),
        "is-asked" => say(&format!("asked {}", embed::stop_requested())),
        "deadline" => embed::set_deadline(Duration::from_millis(number(what) as u64)),
        "at-most" => ending::set_deadline_at_most(Duration::from_millis(number(what) as u64)),
        "chdir" => std::env::set_current_dir(what).unwrap(),
        "same" => say(&format!("instrumented {}", embed::is_instrumented())),
        "mask" => signal_set(what).thread_block().unwrap(),
        "close" => nix::unistd::close(number(what)).unwrap(),
        "unmask" => signal_set(what).thread_unblock().unwrap(),
        "thread" => drop(start(what)),
        "together" => together(what),
        "fork" => fork(what, raw::fork),
        "fork-unseen" => fork(what, raw::fork_unseen),
        "forks" => forks(what),
        "reap" => reap(),
        "first-process" => first_process(what),
        _ => register(verb, what),
    }
}

fn register(verb: &str, what: &str) {
    let name = what.to_owned();
    let said = name.clone();
    let _stays_registered = match verb {
        "finalizer" => embed::finalizer(name, move || measured_finalizer(&said)),
        "hook" => ending::register(name, move |ending| {
            say(&format!("{said} {:?} {}", ending.cause(), ending.remaining().is_some()));
        }),
        "finalizer-until-stop" => {
            let (asked, stop) = mpsc::channel();
            embed::on_stop(move |_| asked.send(()).unwrap());
            embed::finalizer(name, move || {
                say("drains");
                stop.recv().unwrap();
            })
        }
        "hook-until-stop" => ending::register(name, |_| {
            let (asked, stop) = mpsc::channel();
            embed::on_stop(move |_| asked.send(()).unwrap());
            say("drains");
            stop.recv().unwrap();
        }),
        "slow-hook" => ending::register(name, move |_| {
            thread::sleep(Duration::from_millis(300));
            say(&said);
        }),
        "goodbye" => embed::finalizer("goodbye", || {
            for end in ending::finished() {
                say(&format!("{} {:?}", end.name(), end.outcome()));
            }
        }),
        "starts" => embed::finalizer(name, || mask_of_child("finalizer")),
        "panics" => embed::finalizer(name, || panic!("on purpose")),
        "parks" => embed::finalizer(name, move || {
            say(&said);
            take("park", "");
        }),
        "spins" => embed::finalizer(name, || {
            SigSet::all().thread_block().unwrap();
            loop {
                std::hint::spin_loop();
            }
        }),
        "stops" => embed::finalizer(name, || nix::sys::signal::raise(Signal::SIGSTOP).unwrap()),
        "recovers" => {
            raw::guard_page();
            embed::finalizer(name, move || {
                raw::touch_guarded_page();
                say(&said);
            })
        }
        "overflows" => embed::finalizer(name, move || {
            measured_finalizer(&said);
            black_box(overflow(black_box(0)));
        }),
        "waits" => embed::finalizer(name, move || {
            say(&format!("{said} begins"));
            take("wait", "");
            say(&format!("{said} ends"));
        }),
        "waits-and" => embed::finalizer("waits", move || {
            say("waits begins");
            take("wait", "");
            take_all(&inner(&said));
        }),
        "waits-last" => ending::register_last(name, move |ending| {
            say(&format!("{said} begins {}", ending.remaining().is_some()));
            take("wait", "");
        }),
        "forks-in" => embed::finalizer("forks", move || fork_and_return(&inner(&said))),
        "exits-now" => embed::finalizer(name, || embed::exit_now(8)),
        "execs" => embed::finalizer(name, move || {
            say(&format!("exec {}", embed::exec(&mut this_program("say:new"))));
        }),
        "std-exits" => embed::finalizer(name, || std::process::exit(8)),
        "is-hit" => embed::finalizer(name, move || {
            // Handled on this thread, so before it goes on.
            let signal = Signal::try_from(number(&said)).unwrap();
            say("slow begins");
            (0..50).for_each(|_| nix::sys::signal::raise(signal).unwrap());
            say("slow ends");
        }),
        "leaves" => embed::finalizer(name, || embed::exit(9)),
        "cancelled" => return embed::finalizer(name, || say("cancelled")).cancel(),
        "now" => {
            let outcome = embed::finalizer(name, move || say(&said)).run_now();
            return say(&format!("{outcome:?}"));
        }
        "waits-by-hand" => {
            return begin_by_hand(what, |said| {
                take("wait", "");
                say(&format!("{said} ends"));
            });
        }
        "exits-by-hand-in-an-exit" => {
            return begin_by_hand(what, |_| {
                let threads = || procfs::threads_of(Pid::this());
                until(|| threads().iter().any(|thread| thread.name == "epilogue-end"));
                std::process::exit(8)
            });
        }
        "again-and-again-by-hand" => {
            // It takes longer than the way from one to the next, and on a busy machine not much longer.
            let work = || (0..100_000).for_each(|number| _ = std::hint::black_box(number));
            thread::spawn(move || {
                loop {
                    embed::finalizer("again", work).run_now();
                }
            });
            return;
        }
        "std-exits-by-hand" => {
            drop(embed::finalizer(name, || std::process::exit(8)).run_now());
            return;
        }
        _ => return signal(verb, what),
    };
}

/// Has another thread run a finalizer by hand, and goes on when it has begun.
fn begin_by_hand(name: &str, work: fn(&str)) {
    let (begun, begins) = mpsc::channel();
    let said = name.to_owned();
    let by_hand = embed::finalizer(name.to_owned(), move || {
        begun.send(()).unwrap();
        work(&said);
    });
    thread::spawn(move || by_hand.run_now());
    begins.recv().unwrap();
}

fn signal(verb: &str, what: &str) {
    match verb {
        "handle" => embed::cleanup_on_signal(number(what)).unwrap(),
        "refuse" => say(&embed::cleanup_on_signal(number(what)).unwrap_err().to_string()),
        "handle-crash" => embed::cleanup_on_crash().unwrap(),
        "user" => raw::handle(number(what), libc::SA_RESTART),
        "user-interrupts" => raw::handle(number(what), 0),
        "ignore" => raw::ignore(number(what)),
        "raise" => nix::sys::signal::raise(Signal::try_from(number(what)).unwrap()).unwrap(),
        "recover-together" => recover_together(number(what)),
        "errno-across" => errno_across(number(what)),
        "until-handled" => until_handled(number(what) as u32),
        "abort" => std::process::abort(),
        "panic" => panic!("on purpose"),
        "fault" => raw::fault(),
        "overflow" => drop(black_box(overflow(black_box(0)))),
        _ => end(verb, what),
    }
}

fn end(verb: &str, what: &str) {
    match verb {
        "cleanup" => {
            for end in embed::cleanup().finalizers() {
                say(&format!("report {} {:?}", end.name(), end.outcome()));
            }
        }
        "flushes" => (0..number(what)).for_each(|_| embed::flush().unwrap()),
        "flush-for-ever" => loop {
            embed::flush().unwrap();
        },
        "flush" => match embed::flush() {
            Ok(()) => {}
            Err(error) => say(&format!("flush {error}: {}", error.io_error())),
        },
        "exit" => embed::exit(number(what)),
        "exit-now" => embed::exit_now(number(what)),
        "std-exit" => std::process::exit(number(what)),
        "leave-at-once" => support::sys::exit_now(number(what)),
        "exec" => say(&format!("exec {}", embed::exec(&mut this_program(what)))),
        "exec-amid-saves" => exec_amid_saves(what),
        "exec-nothing" => drop(embed::exec(&mut Command::new("/no/such/program"))),
        "bare-exec" => say(&format!("exec {}", this_program(what).exec())),
        _ => panic!("no step {verb:?}"),
    }
}

/// Replaces this program while another thread saves again and again.
fn exec_amid_saves(steps: &str) {
    static SAVED: AtomicU32 = AtomicU32::new(0);
    let mut command = this_program(steps);
    raw::before_exec(&mut command, || {
        thread::spawn(|| {
            loop {
                embed::flush().unwrap();
                SAVED.fetch_add(1, Ordering::SeqCst);
            }
        });
        // Nobody is woken: where there is one CPU, that thread loses it somewhere in a save.
        until(|| SAVED.load(Ordering::SeqCst) > 20);
    });
    say(&format!("exec {}", embed::exec(&mut command)));
}

extern "C" fn wait_at_exit() {
    say(&format!("at exit {}", std::process::id()));
    take("wait", "");
}

/// Registers a finalizer, which has less time than there was.
extern "C" fn register_at_exit() {
    say("registers");
    take("wait", "");
    take_all(&inner("deadline:300,finalizer:late"));
}

extern "C" fn abort_at_exit() {
    measured_call();
    std::process::abort();
}

extern "C" fn call_at_exit() {
    measured_call();
}

/// Gets a signal and leaves in the middle of an exit.
extern "C" fn leave_at_exit() {
    take("raise", "15");
    measured_call();
    embed::exit(9);
}

/// Allocates and frees without end, in as many threads besides this one.
fn allocate(threads: i32) {
    let work = || loop {
        let sizes = (1..100_usize).map(|size| vec![0_u8; black_box(size * 37)]);
        black_box(sizes.collect::<Vec<_>>());
    };
    (0..threads).for_each(|_| drop(thread::spawn(work)));
    if threads == 0 {
        work();
    }
}

/// Says what the kernel knows of this process: its handlers, threads and descriptors.
fn status() {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = |key| status.lines().find_map(|line: &str| line.strip_prefix(key)).unwrap().trim();
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().count();
    say(&format!("{} {} {descriptors}", line("SigCgt:"), line("Threads:")));
}

/// Says which signals are blocked in a program that is started here.
fn mask_of_child(place: &str) {
    let mut command = Command::new("grep");
    let found = command.args(["SigBlk", "/proc/self/status"]).output().unwrap();
    say(&format!("{place} {}", String::from_utf8(found.stdout).unwrap().trim_end()));
}

fn number(what: &str) -> i32 {
    what.parse().unwrap_or_else(|_| panic!("{what:?} is no number"))
}

/// In one write, so that lines of several processes stay apart.
fn say(line: &str) {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(format!("{line}\n").as_bytes()).unwrap();
    stdout.flush().unwrap();
}

fn inner(steps: &str) -> Vec<String> {
    steps.split(',').map(str::to_owned).collect()
}

fn start(steps: &str) -> thread::JoinHandle<()> {
    let steps = inner(steps);
    thread::spawn(move || take_all(&steps))
}

/// Takes the same steps in four threads at once.
fn together(steps: &str) {
    let (barrier, steps) = (Barrier::new(4), inner(steps));
    let run = || {
        barrier.wait();
        take_all(&steps);
    };
    thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(run))));
}

fn fork(steps: &str, fork: fn() -> Option<nix::unistd::Pid>) {
    match fork() {
        Some(child) => say(&format!("child {child}")),
        None => {
            take_all(&inner(steps));
            std::process::exit(0);
        }
    }
}

/// The copy takes its steps and comes back, as the original does when the copy is gone.
fn fork_and_return(steps: &[String]) {
    match raw::fork() {
        Some(_) => reap(),
        None => take_all(steps),
    }
}

/// `20,steps`: as many copies, which take their steps when the last one is there.
fn forks(what: &str) {
    let (count, steps) = what.split_once(',').unwrap();
    let (read, write) = nix::unistd::pipe().unwrap();
    let mut write = Some(write);
    for _ in 0..number(count) {
        if raw::fork().is_none() {
            drop(write.take());
            let _ = nix::unistd::read(&read, &mut [0]);
            take_all(&inner(steps));
            std::process::exit(0);
        }
    }
}

/// Waits for all children.
fn reap() {
    while let Ok(status) = waitpid(None, None) {
        match status {
            WaitStatus::Exited(_, code) => say(&format!("reaped code {code}")),
            WaitStatus::Signaled(_, signal, _) => say(&format!("reaped {signal}")),
            _ => {}
        }
    }
}

/// Takes the steps in a process that is the first of its namespace, and tells how it ended.
fn first_process(steps: &str) {
    let flags = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWPID;
    if let Err(error) = nix::sched::unshare(flags) {
        return say(&format!("refused {error}"));
    }
    let status = this_program(steps).status().unwrap();
    say(&format!("first process {status}"));
}

fn this_program(steps: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(inner(steps));
    command
}

fn signal_set(what: &str) -> SigSet {
    [Signal::try_from(number(what)).unwrap()].into_iter().collect()
}

/// Says what the thread finds in `errno` after a handler has interrupted it: the 77 from before?
fn errno_across(signal: i32) {
    let signal = Signal::try_from(signal).unwrap();
    Errno::set_raw(77);
    nix::sys::signal::raise(signal).unwrap();
    say(&format!("errno {}", Errno::last_raw()));
}

/// Two threads are in the handler from before `cleanup_on_crash` at once, and go on in the order in
/// which they came: the second one when the first is out of embed's handler.
fn recover_together(signal: i32) {
    static INSIDE: AtomicU32 = AtomicU32::new(0);
    static IS_OUT: AtomicBool = AtomicBool::new(false);
    extern "C" fn recover(_signal: i32) {
        match INSIDE.fetch_add(1, Ordering::SeqCst) {
            0 => until(|| INSIDE.load(Ordering::SeqCst) == 2),
            _ => until(|| IS_OUT.load(Ordering::SeqCst)),
        }
    }
    raw::handle_with(signal, recover);
    embed::cleanup_on_crash().unwrap();
    let signal = Signal::try_from(signal).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            nix::sys::signal::raise(signal).unwrap();
            IS_OUT.store(true, Ordering::SeqCst);
        });
        until(|| INSIDE.load(Ordering::SeqCst) == 1);
        scope.spawn(|| nix::sys::signal::raise(signal).unwrap());
    });
}

fn until(is_so: impl Fn() -> bool) {
    while !is_so() {
        std::hint::spin_loop();
    }
}

/// Waits as a C program would: in a call that a signal interrupts, looking at a flag in between.
/// Only inside the call is the signal let in, so none is missed.
fn until_handled(times: u32) {
    signal_set("15").thread_block().unwrap();
    while raw::handled() < times {
        assert_eq!(ppoll(&mut [], None, Some(SigSet::empty())), Err(Errno::EINTR));
    }
}

#[expect(unconditional_recursion, reason = "the stack is to overflow")]
fn overflow(depth: u64) -> u64 {
    let room = black_box([depth; 64]);
    overflow(depth + 1) + room[0]
}
