//! What fixtures for `embed` do to themselves: fork, handle, ignore, fault. Each block holds one
//! call.
#![expect(unsafe_code, reason = "fixtures must do what safe code cannot")]

use std::ffi::{CStr, c_int, c_void};
use std::io::Write;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::{ForkResult, Pid, ftruncate};

static HANDLED: AtomicU32 = AtomicU32::new(0);

/// Copies this process. `None` in the copy.
pub fn fork() -> Option<Pid> {
    // SAFETY: the fixture has no thread that holds a lock which the copy needs.
    match unsafe { nix::unistd::fork() }.unwrap() {
        ForkResult::Parent { child } => Some(child),
        ForkResult::Child => None,
    }
}

/// Has `work` done by an `exec` of `command`, right before the program is replaced.
pub fn before_exec(command: &mut Command, mut work: impl FnMut() + Send + Sync + 'static) {
    let work = move || {
        work();
        Ok(())
    };
    // SAFETY: for an `exec` of this process, which is no copy made by `fork`: all may be called.
    unsafe { command.pre_exec(work) };
}

/// Copies this process without the C library's knowledge. `None` in the copy.
pub fn fork_unseen() -> Option<Pid> {
    let no_stack = ptr::null::<c_void>();
    // SAFETY: a clone without flags but the signal is a fork; the copy uses its own memory.
    let pid = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, no_stack, 0, 0, 0) };
    assert!(pid >= 0, "clone failed");
    (pid > 0).then(|| Pid::from_raw(pid as i32))
}

/// Makes a process that has this number, which must be free, leads a group, and does nothing for
/// ever. Only who may do nearly everything may choose numbers.
pub fn bystander(pid: Pid) -> nix::Result<()> {
    let numbers = [pid.as_raw()];
    // SAFETY: plain data; zero is none of each.
    let mut how: libc::clone_args = unsafe { MaybeUninit::zeroed().assume_init() };
    how.exit_signal = libc::SIGCHLD as u64;
    how.set_tid = numbers.as_ptr() as u64;
    how.set_tid_size = numbers.len() as u64;
    // SAFETY: without flags this is a fork, and the copy only waits, which needs no lock.
    let made = unsafe { libc::syscall(libc::SYS_clone3, &raw const how, size_of_val(&how)) };
    if made == 0 {
        loop {
            nix::unistd::pause();
        }
    }
    nix::errno::Errno::result(made)?;
    nix::unistd::setpgid(pid, pid)
}

/// Handles `signal` with a handler that writes a line: `handler SIGNAL SENDER TIMES`.
pub fn handle(signal: c_int, flags: c_int) {
    let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = on_signal;
    install(signal, handler as usize, flags | libc::SA_SIGINFO);
}

/// Handles `signal` with `handler`, which must do only what a handler may.
pub fn handle_with(signal: c_int, handler: extern "C" fn(c_int)) {
    install(signal, handler as usize, 0);
}

/// Ignores `signal`.
pub fn ignore(signal: c_int) {
    install(signal, libc::SIG_IGN, 0);
}

/// How often the handler of [`handle`] has run.
pub fn handled() -> u32 {
    HANDLED.load(Ordering::SeqCst)
}

fn install(signal: c_int, handler: usize, flags: c_int) {
    // SAFETY: plain data; zero is an empty mask and no restorer.
    let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    action.sa_sigaction = handler;
    action.sa_flags = flags;
    // SAFETY: `action` lives through the call; the handler only does what handlers may.
    assert_eq!(unsafe { libc::sigaction(signal, &action, ptr::null_mut()) }, 0);
}

extern "C" fn on_signal(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    assert!(!context.is_null());
    // SAFETY: the kernel or embed passes a valid value.
    let info = unsafe { &*info };
    // SAFETY: signals in these tests are sent by a process, so this field is there.
    let sender = unsafe { info.si_pid() };
    let times = HANDLED.fetch_add(1, Ordering::SeqCst) + 1;
    say(format_args!("handler {signal} {sender} {times}\n"));
}

/// Writes a line to standard output at once, from anywhere.
pub fn say(line: std::fmt::Arguments<'_>) {
    let mut room = [0; 256];
    let mut rest = &mut room[..];
    rest.write_fmt(line).unwrap();
    let length = 256 - rest.len();
    // SAFETY: the pointer and length are those of a live array's part.
    unsafe { libc::write(1, room.as_ptr().cast(), length) };
}

/// Touches memory that is not there.
pub fn fault() {
    let nowhere = ptr::without_provenance_mut::<u8>(8);
    // SAFETY: none. The fault is what the fixture is for.
    unsafe { nowhere.write_volatile(1) };
}

/// Touches memory behind the end of its file, which was cut after it was mapped.
pub fn bus_error() {
    let file = memfd_create(c"cut", MFdFlags::empty()).unwrap();
    ftruncate(&file, 4096).unwrap();
    let (nowhere, fd) = (ptr::null_mut(), file.as_raw_fd());
    // SAFETY: a new mapping of a page, of which nobody else knows.
    let page = unsafe { libc::mmap(nowhere, 4096, libc::PROT_READ, libc::MAP_SHARED, fd, 0) };
    assert_ne!(page, libc::MAP_FAILED);
    ftruncate(&file, 0).unwrap();
    // SAFETY: none. The fault is what the fixture is for.
    unsafe { page.cast::<u8>().read_volatile() };
}

static GUARDED: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());

/// Makes a page that may not be touched. A handler of `SIGSEGV` allows it, as a garbage collector's does.
pub fn guard_page() {
    extern "C" fn allow(_signal: c_int) {
        // SAFETY: the page below, which nobody unmaps. A plain system call.
        unsafe { libc::mprotect(GUARDED.load(Ordering::SeqCst), 4096, libc::PROT_READ) };
    }
    let (anywhere, how) = (ptr::null_mut(), libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping of a page, of which nobody else knows.
    let page = unsafe { libc::mmap(anywhere, 4096, libc::PROT_NONE, how, -1, 0) };
    assert_ne!(page, libc::MAP_FAILED);
    GUARDED.store(page, Ordering::SeqCst);
    handle_with(libc::SIGSEGV, allow);
}

/// Touches the page of [`guard_page`].
pub fn touch_guarded_page() {
    let page = GUARDED.load(Ordering::SeqCst).cast::<u8>();
    // SAFETY: mapped, and readable when the handler has returned.
    unsafe { page.read_volatile() };
}

/// Executes what is no instruction.
pub fn illegal_instruction() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: none. The fault is what the fixture is for.
    unsafe {
        std::arch::asm!("ud2")
    };
    #[cfg(target_arch = "aarch64")]
    // SAFETY: none. The fault is what the fixture is for.
    unsafe {
        std::arch::asm!("udf #0")
    };
}

/// Opens the plugin at `path`, which stays open, and has it make ten calls.
pub fn run_plugin(path: &CStr) -> bool {
    // SAFETY: a C string. What the library does as it is opened is its fixture's business.
    let library = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW) };
    assert!(!library.is_null(), "cannot open {path:?}");
    // SAFETY: `library` is open, and stays so.
    let run = unsafe { libc::dlsym(library, c"embed_plugin_run".as_ptr()) };
    assert!(!run.is_null(), "no such symbol in {path:?}");
    // SAFETY: the fixture defines the symbol as a function of this type.
    let run = unsafe { std::mem::transmute::<*mut c_void, extern "C" fn(c_int) -> bool>(run) };
    run(10)
}

/// Has the C library write `text` at exit: it stays in a buffer until then.
pub fn print_in_c(text: &CStr) {
    // SAFETY: a format without arguments but this C string.
    unsafe { libc::printf(c"%s".as_ptr(), text.as_ptr()) };
}
