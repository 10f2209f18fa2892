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
            Order::Call(call) => {
                if !link.claim(&call) {
                    continue;
                }
                let answered = link.reply(&call, |reply| match split(&call.payload) {
                    Some((entry, state, argument)) => {
                        entry.run(argument, states.get_mut(&state), link.limits(), reply);
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
