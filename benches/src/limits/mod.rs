//! What the machine can do: the bare calls that a pool is made of, with nothing around them.

mod futex;
mod memory;
mod rings;
mod start;
mod wait;

pub(crate) use self::start::NOTHING;
pub(crate) use self::{futex::run as w2, memory::run as w4, rings::run as w1, start::run as w3};
