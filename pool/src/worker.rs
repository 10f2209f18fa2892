//! What a worker does: one call after the other, until it is told that there are no more.

use std::collections::BTreeMap;

use epilogue_process::entry::{Entry, State};
use epilogue_process::link::{Link, Order};

use crate::call::{Timing, split};

/// The main function of a worker.
pub(crate) fn serve(mut link: Link) {
    let limits = link.limits().clone();
    let mut states: BTreeMap<u64, State> = BTreeMap::new();
    while let Some(order) = link.next_order() {
        match order {
            Order::Call(mut call) => {
                let mut answering = link.answer(&call);
                // The argument owns them from here on: what it drops early is closed early.
                let luggage = call.payload.take_luggage();
                match split(&call.payload.bytes) {
                    Some((entry, state, timing, arguments)) => {
                        if timing == Timing::Timed {
                            answering.note_begin();
                        }
                        let state = states.get_mut(&state);
                        entry.run(arguments, luggage, state, &limits, &mut answering);
                    }
                    None => Entry::reject(&mut answering),
                }
                if !answering.finish() {
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
