//! What happens on a signal: installing our handler, calling the one before it, and dying.
//!
//! Everything but [`install`] is async-signal-safe.

use std::ffi::{c_int, c_void};
use std::io;
use std::mem::{MaybeUninit, transmute};
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

use super::{exit, mask};

/// One more than the largest signal number of any Linux.
pub(crate) const SIGNALS: usize = 65;

/// A signal as its handler got it.
#[derive(Clone, Copy)]
pub(crate) struct Delivery {
    pub(crate) signal: c_int,
    info: libc::siginfo_t,
    context: *mut c_void,
}

/// What was in force before our handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Previous {
    Default,
    Ignored,
    Handler,
}

/// The previous handler and its flags, and the function that a delivery is given to: all written
/// before our handler can run.
struct Before {
    handler: AtomicUsize,
    flags: AtomicI32,
    entry: AtomicUsize,
}

static BEFORE: [Before; SIGNALS] = [const { Before::new() }; SIGNALS];

impl Before {
    const fn new() -> Self {
        let handler = AtomicUsize::new(libc::SIG_DFL);
        Self { handler, flags: AtomicI32::new(0), entry: AtomicUsize::new(0) }
    }
}

fn before(signal: c_int) -> Option<&'static Before> {
    BEFORE.get(usize::try_from(signal).ok()?)
}

/// What was in force for `signal` before our handler.
pub(crate) fn previous(signal: c_int) -> Previous {
    match before(signal).map(|before| before.handler.load(Ordering::Acquire)) {
        None | Some(libc::SIG_DFL) => Previous::Default,
        Some(libc::SIG_IGN) => Previous::Ignored,
        Some(_) => Previous::Handler,
    }
}

/// Whether anybody has a handler for `signal`.
pub(crate) fn has_handler(signal: c_int) -> bool {
    let is_handler = |action: libc::sigaction| {
        action.sa_sigaction != libc::SIG_DFL && action.sa_sigaction != libc::SIG_IGN
    };
    change(signal, None).is_ok_and(is_handler)
}

/// Which stack a handler runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stack {
    /// The thread's own, or where the previous handler ran.
    ///
    /// Not always the one for signals: `std::process::exit` on another thread unmaps the main
    /// thread's while that still runs, and a signal that arrives then would be a segmentation
    /// fault.
    Own,
    /// The one that is set apart for signals: the thread's own may have overflowed.
    Apart,
}

/// A stack that is set apart for the signals of this thread, as the standard library does for its own
/// threads.
#[derive(Debug)]
pub(crate) struct StackApart(*mut [u8]);

impl StackApart {
    const SIZE: usize = 64 << 10;

    pub(crate) fn new() -> Self {
        let memory = Box::into_raw(vec![0u8; Self::SIZE].into_boxed_slice());
        set_stack(memory.cast(), 0);
        Self(memory)
    }
}

impl Drop for StackApart {
    fn drop(&mut self) {
        set_stack(ptr::null_mut(), libc::SS_DISABLE);
        // SAFETY: from `Box::into_raw` in `new`, and the kernel uses it no more.
        drop(unsafe { Box::from_raw(self.0) });
    }
}

fn set_stack(memory: *mut c_void, flags: c_int) {
    let stack = libc::stack_t { ss_sp: memory, ss_flags: flags, ss_size: StackApart::SIZE };
    // SAFETY: none, or memory that is this thread's alone until it is taken away again. Where it is refused,
    // an overflow of the thread's own stack ends the process without a handler.
    unsafe { libc::sigaltstack(&stack, ptr::null_mut()) };
}

/// Has `entry` called on `signal`, with every signal blocked, unless the signal is ignored.
pub(crate) fn install(signal: c_int, entry: fn(&Delivery), stack: Stack) -> io::Result<Previous> {
    let old = change(signal, None)?;
    if old.sa_sigaction == libc::SIG_IGN {
        return Ok(Previous::Ignored);
    }
    let trampoline: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = on_signal;
    if old.sa_sigaction == trampoline as usize {
        // In a copy that was made as its original installed it. It must not come to be its own
        // previous handler, which would call itself for ever.
        return Ok(previous(signal));
    }
    if let Some(before) = before(signal) {
        before.entry.store(entry as usize, Ordering::Release);
        before.flags.store(old.sa_flags, Ordering::Release);
        before.handler.store(old.sa_sigaction, Ordering::Release);
    }
    // A previous handler that wants calls to be interrupted gets that; who had none does not
    // expect it.
    let kept = libc::SA_RESTART | libc::SA_ONSTACK | libc::SA_NOCLDSTOP | libc::SA_NOCLDWAIT;
    let kept = match previous(signal) {
        Previous::Handler => old.sa_flags & kept,
        Previous::Default | Previous::Ignored => libc::SA_RESTART,
    };
    let mut action = default_action();
    action.sa_sigaction = trampoline as usize;
    action.sa_flags = libc::SA_SIGINFO | kept;
    if stack == Stack::Apart {
        action.sa_flags |= libc::SA_ONSTACK;
    }
    action.sa_mask = mask::full();
    change(signal, Some(&action))?;
    Ok(previous(signal))
}

/// The kernel's way into this crate.
extern "C" fn on_signal(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes the address of a valid value; a handler that was installed later
    // and calls this one passes what it got, or null.
    let info = unsafe { info.as_ref() }.copied().unwrap_or_else(|| empty_info(signal));
    let entry = before(signal).map_or(0, |before| before.entry.load(Ordering::Acquire));
    // SAFETY: zero is `None`; else `install` stored a function of this type.
    let entry = unsafe { transmute::<usize, Option<fn(&Delivery)>>(entry) };
    if let Some(entry) = entry {
        entry(&Delivery { signal, info, context });
    }
}

impl Delivery {
    /// A delivery that nobody has received.
    pub(crate) fn empty() -> Self {
        Self { signal: 0, info: empty_info(0), context: ptr::null_mut() }
    }

    /// The same signal where its context is gone: the interrupted thread has gone on.
    pub(crate) fn without_context(&self) -> Self {
        Self { context: ptr::null_mut(), ..*self }
    }

    /// The signal that came first, in the context of the one that came to repeat it.
    pub(crate) fn in_context_of(&self, other: &Self) -> Self {
        Self { context: other.context, ..*self }
    }

    /// Calls the handler that was in force before ours, if there was one.
    pub(crate) fn call_previous(&self) {
        let Some(before) = before(self.signal) else { return };
        let handler = before.handler.load(Ordering::Acquire);
        if handler == libc::SIG_DFL || handler == libc::SIG_IGN {
            return;
        }
        let mut info = self.info;
        let flags = before.flags.load(Ordering::Acquire);
        if flags & libc::SA_RESETHAND != 0 {
            before.handler.store(libc::SIG_DFL, Ordering::Release);
        }
        if flags & libc::SA_SIGINFO == 0 {
            // SAFETY: neither constant, so a function; without SA_SIGINFO it takes the number.
            let handler = unsafe { transmute::<usize, extern "C" fn(c_int)>(handler) };
            return handler(self.signal);
        }
        type Full = extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);
        // SAFETY: neither constant, so a function; with SA_SIGINFO it takes these three.
        let handler = unsafe { transmute::<usize, Full>(handler) };
        let mut nothing = empty_context();
        let gone = (&raw mut nothing).cast::<c_void>();
        handler(self.signal, &mut info, if self.context.is_null() { gone } else { self.context });
    }

    /// Whether a thread of this process sent it to one of its threads, as [`send_to`] does.
    pub(crate) fn is_from_within(&self) -> bool {
        // SAFETY: a signal with this code was sent by a process, so the field is there.
        let sender = || unsafe { self.info.si_pid() };
        self.info.si_code == libc::SI_TKILL && sender().cast_unsigned() == std::process::id()
    }

    /// Whether returning from the handler meets the same fault again.
    fn is_fault(&self) -> bool {
        let faults = [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE];
        self.info.si_code > 0 && faults.contains(&self.signal)
    }

    /// From the handler: has the default action follow as soon as it returns.
    pub(crate) fn default_follows(&self) {
        if std::process::id() == 1 {
            // The kernel spares the first process from every default action.
            exit::exit_at_once(128 + self.signal);
        }
        let _ = change(self.signal, Some(&default_action()));
        if !self.is_fault() {
            // It stays pending until our handler's return lets it in.
            send_to(this_thread(), self.signal);
        }
    }
}

/// Sends `signal` to one thread of this process; false if that thread is gone.
pub(crate) fn send_to(thread: libc::pid_t, signal: c_int) -> bool {
    // SAFETY: three integers. A thread of another process with that number is not reached.
    unsafe { libc::syscall(libc::SYS_tgkill, std::process::id(), thread, signal) == 0 }
}

/// Runs `work` with what was in force for `signal` before our handler.
pub(crate) fn without_ours(signal: c_int, work: impl FnOnce()) {
    let mut action = default_action();
    if let Some(before) = before(signal) {
        action.sa_sigaction = before.handler.load(Ordering::Acquire);
        action.sa_flags = before.flags.load(Ordering::Acquire);
    }
    let there = change(signal, Some(&action));
    work();
    // Not where another thread has put ours aside already: that one puts it back, perhaps before this
    // one is here, which would take it away again for good.
    if let Ok(there) = there
        && there.sa_sigaction != action.sa_sigaction
    {
        let _ = change(signal, Some(&there));
    }
}

/// Dies by `signal`, or by an exit code that names it where signals do nothing.
pub(crate) fn die_by(signal: c_int) -> ! {
    let _ = change(signal, Some(&default_action()));
    mask::unblock(signal);
    // SAFETY: no precondition.
    unsafe { libc::raise(signal) };
    exit::exit_at_once(128 + signal)
}

/// Has `signal`, one of the terminal's, stop the whole process, and returns when it is continued.
///
/// By that signal and not by `SIGSTOP`: whoever waits for us is told of it, and in a group of which nobody
/// could continue us the kernel does not stop for it.
pub(crate) fn stop_by(signal: c_int) {
    without_ours(signal, || {
        mask::letting_in(|one| one == signal, || send_to(this_thread(), signal));
    });
}

/// What interrupts the wait of a thread of ours: a signal that nobody uses, and that no program
/// can tell of a fault by.
#[cfg(not(any(target_arch = "mips", target_arch = "mips64", target_arch = "sparc64")))]
pub(crate) const INTERRUPTION: c_int = libc::SIGSTKFLT;
#[cfg(any(target_arch = "mips", target_arch = "mips64", target_arch = "sparc64"))]
pub(crate) const INTERRUPTION: c_int = libc::SIGPWR;

/// Interrupts the wait of `thread`, which lets [`INTERRUPTION`] in there and nowhere else.
/// Async-signal-safe.
pub(crate) fn interrupt(thread: libc::pid_t) {
    extern "C" fn nothing(_signal: c_int) {}
    // Installed when it is needed: until then it is the program's, as every signal is.
    if !has_handler(INTERRUPTION) {
        let mut action = default_action();
        let handler: extern "C" fn(c_int) = nothing;
        action.sa_sigaction = handler as usize;
        let _ = change(INTERRUPTION, Some(&action));
    }
    send_to(thread, INTERRUPTION);
}

/// Whether `thread` is in `pause`, where std keeps who calls `exit` while another thread is in it.
pub(crate) fn is_paused(thread: libc::pid_t) -> bool {
    // Where there is no such call the C library waits for no descriptor and no time.
    let pause = if cfg!(target_arch = "x86_64") { "34 " } else { "73 0x0 0x0 0x0 0x0 " };
    let call = std::fs::read_to_string(format!("/proc/self/task/{thread}/syscall"));
    call.is_ok_and(|call| call.starts_with(pause))
}

/// The kernel's number for this thread.
pub(crate) fn this_thread() -> libc::pid_t {
    // SAFETY: no precondition.
    unsafe { libc::gettid() }
}

/// Reads the disposition of `signal`, and changes it if there is a new one.
fn change(signal: c_int, new: Option<&libc::sigaction>) -> io::Result<libc::sigaction> {
    let new = new.map_or(ptr::null(), ptr::from_ref);
    let mut old = default_action();
    // SAFETY: `new` is null or lives through the call, as `old` does. A handler in it is ours, and
    // does only what a handler may.
    match unsafe { libc::sigaction(signal, new, &mut old) } {
        0 => Ok(old),
        _ => Err(io::Error::last_os_error()),
    }
}

fn default_action() -> libc::sigaction {
    // SAFETY: plain data; zero is `SIG_DFL`, no flags, an empty mask and no restorer.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

fn empty_info(signal: c_int) -> libc::siginfo_t {
    // SAFETY: plain data for which all zeroes is a valid value.
    let mut info: libc::siginfo_t = unsafe { MaybeUninit::zeroed().assume_init() };
    info.si_signo = signal;
    info
}

fn empty_context() -> libc::ucontext_t {
    // SAFETY: plain data for which all zeroes is a valid value.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

#[cfg(test)]
mod tests {
    use super::{Previous, Stack, install, previous};

    #[test]
    fn our_own_handler_is_not_taken_for_the_one_before_it() {
        for _ in 0..2 {
            install(libc::SIGWINCH, |_| (), Stack::Own).unwrap();
            assert_eq!(previous(libc::SIGWINCH), Previous::Default);
        }
    }
}
