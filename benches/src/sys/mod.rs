//! What needs `unsafe`: each block one call, each with its argument.
//!
//! | module | what it is for |
//! |---|---|
//! | `futex` | sleeping on a word of shared memory, and waking who does |
//! | `process` | fork, a sibling, a session, what runs at exit |
//! | `shared` | memory that is the same in a process and its forks |

pub(crate) mod futex;
pub(crate) mod process;
pub(crate) mod shared;
