//! Sends the replies that several links brought together.
//!
//! In front of a cluster the replies to one pipeline come from several servers, over as many
//! links. A write to the app for each of them costs more than all the rest. So who has all replies
//! gets them once every link that had something in this turn of the event loop was read; who still
//! misses some gets what is there a few turns later, which wait for nothing.

use std::rc::Rc;

use tokio::{sync::Notify, task::yield_now};

use crate::worker::Worker;

/// Turns of the event loop during which an incomplete answer is kept back. Measured (`bench/`, three
/// shards, pipeline 16): pass-through costs 1.6 times that to one server, 1.8 without this; on a
/// busy machine, where more arrives in a turn, 1.2 with three turns and 1.4 with one.
const TURNS: usize = 3;

/// Wakes the task that sends.
#[derive(Default)]
pub struct Parting {
    read: Notify,
}

impl Parting {
    /// A link was read: its replies are sent at the end of the turn.
    pub fn soon(&self) {
        self.read.notify_one();
    }

    /// Sends, turn after turn, for as long as the event loop lives.
    pub async fn run(worker: Rc<Worker>) {
        loop {
            worker.parting.read.notified().await;
            for _ in 0..TURNS {
                if !worker.flush_answered() {
                    break;
                }
                yield_now().await;
            }
            worker.flush_dirty();
        }
    }
}
