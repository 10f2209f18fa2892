//! Forks with a pool, a task and a process in hand, and says what each is good for in the copy.

use std::error::Error;
use std::sync::OnceLock;

use epilogue::{AsCompleted, Pool, Portable, Process, SharedSlice, Task};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

mod sys {
    #![expect(unsafe_code, reason = "a raw fork is what this program is about")]

    use nix::unistd::{ForkResult, Pid, fork};

    pub fn copy() -> Option<Pid> {
        // SAFETY: no other thread of this program holds a lock: the pool's waits for its workers.
        match unsafe { fork() }.unwrap() {
            ForkResult::Parent { child } => Some(child),
            ForkResult::Child => None,
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let pool = Pool::new(2)?;
    let task = pool.submit(21u64, |x| x * 2)?;
    let other = pool.submit(22u64, |x| x * 2)?;
    let completes = pool.as_completed([pool.submit(23u64, |x| x * 2)?]);
    let process = Process::start(4u64, |x| x + 1)?;
    let mut copy = None;
    let items = (0..100u8).inspect(|&x| {
        if x == 50 {
            copy = Some(sys::copy());
        }
    });
    let outcome = pool.map(items, |x| x);
    let Some(Some(forked)) = copy else {
        println!("iterator: {}", outcome.unwrap_err());
        std::process::exit(0);
    };
    waitpid(forked, None)?;
    println!("iterator in the original: {} items", outcome?.len());
    let words = SharedSlice::copy_from(&[1u64, 2])?;
    ends_in_a_fork(&pool, |x| x)?;
    ends_in_a_fork(&pool, |x| x.to_string())?;
    reduces_in_a_fork(&pool)?;
    // One copy leaves through exit with all of it alive, the other drops it.
    let Some(exits) = sys::copy() else { std::process::exit(0) };
    let Some(drops) = sys::copy() else {
        let error = pool.submit("kept".to_owned(), |text| text.len()).unwrap_err();
        println!("submit: {error}\nvalue back: {}", error.value);
        println!("map: {}", pool.map([1], |x: u8| x).unwrap_err());
        println!("try_map: {}", pool.try_map([1], |x: u8| Ok::<_, String>(x)).unwrap_err());
        println!("map_with: {}", pool.map_with(&1, [1], |_, x: u8| x).unwrap_err());
        let shared = pool.map_shared(&words, |words| words.len());
        println!("map_shared: {}", shared.unwrap_err());
        println!("map_outcomes: {}", pool.map_outcomes([1], |x: u8| x).unwrap_err());
        println!("task: {}", task.join().unwrap_err());
        let own = Pool::new(2)?;
        completes_in_a_fork(other, completes, &own);
        println!("close: {}", pool.close().unwrap_err());
        println!("terminate: {}", pool.terminate().unwrap_err());
        println!("process: {}", process.join().unwrap_err());
        println!("own pool: {:?}", own.map([1, 2], |x: u8| x * 2)?);
        drop(own);
        drop(pool);
        return Ok(());
    };
    for copy in [exits, drops] {
        let code = match waitpid(copy, None)? {
            WaitStatus::Exited(_, code) => Some(code),
            _ => None,
        };
        println!("copy ended: {code:?}");
        assert_eq!(code, Some(0));
    }
    println!("original: {:?}", pool.map([0u8, 1, 2], |x| x + 1)?);
    println!("task: {}\nprocess: {}", task.join()?, process.join()?);
    println!("other: {}\ncompletes: {:?}", other.join()?, completes.flat_map(|(_, x)| x).max());
    println!("clean: {}", pool.close()?.is_clean());
    Ok(())
}

static ORIGINAL: OnceLock<u32> = OnceLock::new();
static COPY: OnceLock<Option<Pid>> = OnceLock::new();

/// Adds, and forks the first time that it does so in the original.
fn add(a: u64, b: u64) -> u64 {
    if ORIGINAL.get() == Some(&std::process::id()) {
        COPY.get_or_init(sys::copy);
    }
    a + b
}

fn reduces_in_a_fork(pool: &Pool) -> Result<(), Box<dyn Error>> {
    ORIGINAL.get_or_init(std::process::id);
    let sum = pool.chunk_size(10).map_reduce(0..30u64, |x| x, add);
    let Some(forked) = *COPY.get().ok_or("nothing was reduced here")? else {
        println!("reduction: {}", sum.unwrap_err());
        std::process::exit(0);
    };
    waitpid(forked, None)?;
    println!("reduced in the original: {:?}", sum?);
    Ok(())
}

/// Has tasks given as they are done, of which the first is the original's; and those of an iterator that
/// is the original's.
fn completes_in_a_fork(task: Task<u64>, completes: AsCompleted<u64>, own: &Pool) {
    let tasks = [task, own.submit(4u64, |x| x + 1).unwrap()];
    let both = own.as_completed(tasks).map(|(position, outcome)| (position, outcome.ok()));
    let mut both: Vec<_> = both.collect();
    both.sort();
    println!("as completed: {both:?}");
    let errors: Vec<_> = completes.map(|(_, outcome)| outcome.unwrap_err().to_string()).collect();
    println!("as completed, of the original: {}", errors.join("; "));
}

/// Maps what an iterator gives that forks in the call in which it ends.
fn ends_in_a_fork<T: Portable>(pool: &Pool, give: fn(u8) -> T) -> Result<(), Box<dyn Error>> {
    let mut copy = None;
    let last = std::iter::from_fn(|| {
        copy.get_or_insert_with(sys::copy);
        None
    });
    let outcome = pool.map((0..100u8).map(give).chain(last), |x: T| x);
    let Some(Some(forked)) = copy else {
        println!("iterator that ends: {}", outcome.err().ok_or("it went on")?);
        std::process::exit(0);
    };
    waitpid(forked, None)?;
    println!("iterator in the original: {} items", outcome?.len());
    Ok(())
}
