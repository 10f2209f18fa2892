//! What needs `unsafe`: each block one call, each with its argument.
//!
//! | module | what it is for |
//! |---|---|
//! | `atomic` | the words of a ring, which a model replaces |
//! | `counter` | a counter that another process has, too, taken without a wait |
//! | `descriptors` | descriptors over a socket: sent, received, owned |
//! | `dress` | what a forked child changes of what it inherited |
//! | `futex` | sleeping on a word of shared memory |
//! | `fork` | a child of this process's parent, for the start server |
//! | `hook` | the `.init_array` entry by which a child is recognised before `main` |
//! | `image` | where this program's code lies, and what may be called in it |
//! | `mapping` | files in memory: made, sealed, mapped |
//! | `memory` | the words of memory that a parent and one child share |
//! | `pages` | the pages that every forked child writes, copied ahead |
//! | `passing` | the messages of the start server, by `descriptors` |
//! | `pid` | which process this is, without a system call |
//! | `pidfd` | signals to, and the exit status of, exactly one child |
//! | `process` | facts of this process, and what a child sets before it serves |
//! | `random` | a random number, or an error |
//! | `raw` | numbers, and vectors of them, as the bytes that they are |
//! | `seal` | from here on this process starts no other |
//! | `segment` | memory that one process writes and others read, again and again |
//! | `spawn` | `posix_spawn` with signals blocked and descriptors closed |
//! | `title` | the command line of this process, written over |
//! | `trampoline` | an address that becomes a function again |

pub(crate) mod atomic;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod copy;
pub(crate) mod counter;
pub(crate) mod descriptors;
pub(crate) mod dress;
pub(crate) mod fork;
pub(crate) mod futex;
pub(crate) mod hook;
pub(crate) mod image;
pub(crate) mod mapping;
pub(crate) mod memory;
pub(crate) mod pages;
pub(crate) mod passing;
pub(crate) mod pid;
pub(crate) mod pidfd;
pub(crate) mod process;
pub(crate) mod random;
pub(crate) mod raw;
pub(crate) mod seal;
pub(crate) mod segment;
pub(crate) mod spawn;
pub(crate) mod title;
pub(crate) mod trampoline;
