//! A program two threads of which end it at once: its argument says how they cross.
#![expect(unsafe_code, reason = "a function of the C library is replaced")]

use std::ffi::{c_int, c_void};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::thread;
use std::time::Duration;

use epilogue::embed;
use nix::libc;
use nix::sys::signal::{Signal, raise};
use nix::unistd::{Pid, gettid};
use support::{procfs, raw, sys};

/// Whether the next hook for the C library's list never gets there.
static HELD: AtomicBool = AtomicBool::new(false);
/// Whether it would be there by now.
static IS_HELD: AtomicBool = AtomicBool::new(false);
/// Whether the second thread may go on.
static GO: AtomicBool = AtomicBool::new(false);

fn main() {
    sys::reset(Signal::SIGTERM);
    let story = std::env::args().nth(1).unwrap();
    match story.as_str() {
        "first-hook" => first_hook(),
        "exit-now" => second_thread(|| embed::exit_now(7)),
        "exec" => second_thread(|| drop(embed::exec(&mut Command::new("/bin/false")))),
        "finalizer" => signal_in_exit(|| {
            embed::finalizer("late", || println!("late"));
        }),
        "exit-now-after-signal" => signal_in_exit(|| embed::exit_now(7)),
        "exit-after-signal" => signal_in_exit(|| embed::exit(7)),
        "code" => code(),
        "exit-in-a-hook" => exit_in_a_hook(),
        "by-hand-in-a-death" => by_hand_in(|| raise(Signal::SIGTERM).unwrap()),
        "by-hand-in-a-cleanup" => by_hand_in(|| drop(embed::cleanup())),
        "left-behind" => left_behind(),
        "late" => late(),
        "late-exit-now" => late_before(|| embed::exit_now(3)),
        "late-exec" => late_before(|| {
            embed::exec(&mut Command::new("/no/such/program"));
            embed::finalizer("again", || println!("again"));
            thread::spawn(|| embed::finalizer("other", || println!("other"))).join().unwrap();
            std::process::exit(3)
        }),
        "last-hook" => last_hook(),
        _ => panic!("no story {story:?}"),
    }
}

/// A thread is stopped where it puts the hook into the C library's list, and this one exits.
fn first_hook() {
    HELD.store(true, Ordering::SeqCst);
    thread::spawn(|| embed::finalizer("a", || println!("a")));
    until(&IS_HELD);
    embed::finalizer("b", || println!("b"));
}

/// A thread leaves as this one is past embed's hook, and in one that was there before.
fn second_thread(leave: fn()) -> ! {
    extern "C" fn at_the_end() {
        GO.store(true, Ordering::SeqCst);
        // It waits for this one's exit, or it has ended the process.
        let waits = |thread: &procfs::Entry| thread.name == "second" && thread.state == 'S';
        while !procfs::threads_of(Pid::this()).iter().any(waits) {}
        println!("at the end");
    }
    sys::at_exit(at_the_end);
    embed::finalizer("a", || println!("a"));
    let second = thread::Builder::new().name("second".to_owned());
    second
        .spawn(move || {
            IS_HELD.store(true, Ordering::SeqCst);
            until(&GO);
            leave();
        })
        .unwrap();
    until(&IS_HELD);
    std::process::exit(3)
}

/// A signal comes in the middle of the exit, before embed's hook, and `late` is done behind it.
fn signal_in_exit(late: fn()) -> ! {
    static LATE: std::sync::OnceLock<fn()> = std::sync::OnceLock::new();
    extern "C" fn at_the_end() {
        println!("at the end");
        LATE.get().unwrap()();
    }
    extern "C" fn at_the_beginning() {
        raise(Signal::SIGTERM).unwrap();
        until(&GO);
    }
    LATE.set(late).unwrap();
    sys::at_exit(at_the_end);
    embed::finalizer("a", || {
        println!("a");
        GO.store(true, Ordering::SeqCst);
    });
    embed::cleanup_on_sigterm().unwrap();
    sys::at_exit(at_the_beginning);
    std::process::exit(3)
}

/// A signal comes as the last thing of an exit, behind embed's hook, which does not wait for anybody.
fn last_hook() -> ! {
    extern "C" fn at_the_end() {
        println!("at the end");
        raise(Signal::SIGTERM).unwrap();
    }
    sys::at_exit(at_the_end);
    embed::finalizer("a", || println!("a"));
    embed::cleanup_on_sigterm().unwrap();
    std::process::exit(3)
}

/// A thread exits with a code, and `main` returns before that is done.
fn code() {
    embed::finalizer("a", || {
        IS_HELD.store(true, Ordering::SeqCst);
        // It waits for the turn that the other thread has.
        let main = Pid::this();
        let waits = |thread: &procfs::Entry| thread.pid == main && thread.state == 'S';
        while !procfs::threads_of(main).iter().any(waits) {}
        println!("a");
    });
    thread::spawn(|| embed::exit(3));
    until(&IS_HELD);
}

/// A thread exits in a finalizer that it runs by hand, as an ending is in the middle of another one.
fn by_hand_in(end: fn()) -> ! {
    embed::cleanup_on_sigterm().unwrap();
    let by_hand = embed::finalizer("by hand", || {
        IS_HELD.store(true, Ordering::SeqCst);
        until(&GO);
        std::process::exit(7)
    });
    let thread = thread::Builder::new().name("by hand".to_owned());
    thread.spawn(|| by_hand.run_now()).unwrap();
    until(&IS_HELD);
    embed::finalizer("a", || {
        GO.store(true, Ordering::SeqCst);
        // It waits for its turn, or it has ended the process.
        let waits = |thread: &procfs::Entry| thread.name == "by hand" && thread.state == 'S';
        while !procfs::threads_of(Pid::this()).iter().any(waits) {}
        println!("a");
    });
    end();
    loop {
        thread::park();
    }
}

/// A finalizer that a cleanup has left behind exits as the thread that left it runs another one.
fn left_behind() -> ! {
    static LEFT: AtomicI32 = AtomicI32::new(0);
    embed::set_deadline(Duration::from_millis(50));
    // It may find no time to begin in.
    while LEFT.load(Ordering::SeqCst) == 0 {
        embed::finalizer("left behind", || {
            LEFT.store(gettid().as_raw(), Ordering::SeqCst);
            until(&GO);
            std::process::exit(3)
        });
        embed::cleanup();
    }
    embed::set_deadline(Duration::MAX);
    embed::finalizer("a", || {
        GO.store(true, Ordering::SeqCst);
        // It waits for its turn, or it has ended the process.
        let left = Pid::from_raw(LEFT.load(Ordering::SeqCst));
        let waits = |thread: &procfs::Entry| thread.pid == left && thread.state == 'S';
        while !procfs::threads_of(Pid::this()).iter().any(waits) {}
        println!("a");
    });
    embed::exit(0)
}

/// The exit comes to a hook from before embed's, which asks for another one.
fn exit_in_a_hook() -> ! {
    extern "C" fn at_the_end() {
        print!("at the end");
        raw::print_in_c(c", and in C");
        embed::exit(7);
    }
    sys::at_exit(at_the_end);
    embed::finalizer("a", || println!("a"));
    std::process::exit(3)
}

/// A thread registers what is to run when the exit is past embed's hook, and in one from before.
fn late() -> ! {
    extern "C" fn at_the_end() {
        GO.store(true, Ordering::SeqCst);
        until(&IS_HELD);
        println!("at the end");
    }
    sys::at_exit(at_the_end);
    embed::finalizer("a", || println!("a"));
    thread::spawn(|| {
        until(&GO);
        embed::finalizer("late", || println!("late"));
        IS_HELD.store(true, Ordering::SeqCst);
    });
    std::process::exit(3)
}

/// A thread registers one after the other, the next when the last has run, and tells of each.
fn late_before(leave: fn()) {
    thread::spawn(|| {
        for number in 0.. {
            GO.store(false, Ordering::SeqCst);
            embed::finalizer("late", move || {
                raw::say(format_args!("ran {number}\n"));
                GO.store(true, Ordering::SeqCst);
            });
            raw::say(format_args!("told {number}\n"));
            IS_HELD.store(true, Ordering::SeqCst);
            until(&GO);
        }
    });
    until(&IS_HELD);
    leave();
}

fn until(flag: &AtomicBool) {
    while !flag.load(Ordering::SeqCst) {
        std::hint::spin_loop();
    }
}

type Hook = extern "C" fn(*mut c_void);

/// In place of the C library's, by which all hooks come into its list.
#[unsafe(no_mangle)]
extern "C" fn __cxa_atexit(hook: Hook, argument: *mut c_void, image: *mut c_void) -> c_int {
    if HELD.swap(false, Ordering::SeqCst) {
        IS_HELD.store(true, Ordering::SeqCst);
        loop {
            thread::park();
        }
    }
    // SAFETY: looks a name up among the libraries that are loaded.
    let real = unsafe { libc::dlsym(libc::RTLD_NEXT, c"__cxa_atexit".as_ptr()) };
    assert!(!real.is_null());
    type Real = extern "C" fn(Hook, *mut c_void, *mut c_void) -> c_int;
    // SAFETY: the C library's function of this type.
    let real = unsafe { std::mem::transmute::<*mut c_void, Real>(real) };
    real(hook, argument, image)
}
