//! What a worker does: one call after the other, until it is told that there are no more.

use std::collections::HashMap;

use epilogue_process::entry::{Entry, State};
use epilogue_process::link::{Link, Order};

use crate::call::split;

/// The main function of a worker.
pub(crate) fn serve(link: Link) {
    let mut states: HashMap<u64, State> = HashMap::new();
    while let Some(order) = link.next() {
        match order {
            Order::Call(mut call) => {
                if !link.claim(&call) {
                    continue;
                }
                // The argument owns them from here on: what it drops early is closed early.
                let descriptors = call.payload.take_descriptors();
                let answered = link.reply(&call, |reply| match split(&call.payload.bytes) {
                    Some((entry, state, argument)) => {
                        let state = states.get_mut(&state);
                        entry.run(argument, descriptors, state, link.limits(), reply);
                    }
                    None => Entry::reject(reply),
                });
                if !answered {
                    break;
                }
            }
            Order::Share(id, encoded) => {
                states.insert(id, State::new(encoded));
            }
            Order::Forget(id) => {
                if let Some(state) = states.remove(&id) {
                    state.discard();
                }
            }
            _ => {}
        }
    }
    states.into_values().for_each(State::discard);
}
